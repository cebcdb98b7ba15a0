"""Label noise on pairs that are hard to tell apart: the smaller the margin of the data's scores, the likelier a flip.

    w_i = σ(−|s_w − s_l| / temperature);   y_w ↔ y_l  for round(rate·N) rows, drawn with weights w_i

An annotator who follows Bradley and Terry's model with the data's scores prefers the worse of two responses with just
this probability. In lists the margin is that of the first and the last response. The size of the margin counts, not its
sign: a pair whose label contradicts its scores is not corrected.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.lazy import np
from alignzoo.plugin import SelectorCard, Verified
from alignzoo_selectors.noise import RateOptions, drawn, log_sigmoid, means

NAME = "margin-flips"


class MarginFlipsOptions(RateOptions):
    """How many rows, and how much the margin matters."""

    temperature: float = Field(
        1.0, gt=0, description="in units of the scores; the smaller, the more flips fall on the smallest margins"
    )


class MarginFlips(Selector):
    """Flips rows of small margins."""

    options: MarginFlipsOptions

    def select(self, ctx: SelectionContext) -> Selection:
        assert ctx.scores is not None
        margins = np.array([abs(scores[0] - scores[-1]) for scores in ctx.scores], np.float64)
        flipped = drawn(NAME, ctx, self.options.rate, log_sigmoid(-margins / self.options.temperature))
        notes = {row: f"margin {margins[row]:.4g}" for row in flipped}
        return Selection(flipped=flipped, notes=notes, facts=means("margin", margins, flipped))


CARD = SelectorCard(
    name=NAME,
    target=f"{__name__}:MarginFlips",
    options=MarginFlipsOptions,
    summary="Flips the labels of rows, small score margins first",
    family="noise",
    formula="y_w ↔ y_l for round(rate·N) rows, drawn ∝ σ(−|s_w − s_l|/temperature)",
    shapes=frozenset({"pairs", "ranked"}),
    needs=frozenset({"scores"}),
    verified=(
        Verified(against="the stated probabilities", test="test_the_first_row_drawn_follows_the_weights"),
        Verified(against="the stated counts", test="test_noise_flips_exactly_its_rate_and_higher_rates_more"),
    ),
)
