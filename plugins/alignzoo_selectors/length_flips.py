"""Label noise of annotators who judge by length.

    w_i = |y_l|^k / (|y_w|^k + |y_l|^k),  k = 1/temperature;   y_w ↔ y_l  for round(rate·N) rows, drawn with weights w_i

Lengths are in tokens. The weight is the probability with which an annotator who sees nothing but the lengths prefers
the rejected response (Bradley and Terry's model with log-lengths as scores); with ``prefer=shorter`` the two lengths
change places.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.lazy import np
from alignzoo.plugin import SelectorCard, Verified
from alignzoo_selectors.noise import RateOptions, drawn, log_sigmoid, means

NAME = "length-flips"


class LengthFlipsOptions(RateOptions):
    """How many rows, which length is preferred, and how much it matters."""

    prefer: Literal["longer", "shorter"] = Field("longer", description="the responses that the annotators prefer")
    temperature: float = Field(
        0.25, gt=0, description="of the log-ratio of the lengths; the smaller, the more strictly length decides"
    )


class LengthFlips(Selector):
    """Flips pairs in favour of the longer, or the shorter, response."""

    options: LengthFlipsOptions

    def select(self, ctx: SelectionContext) -> Selection:
        lengths = np.array([[len(ids) for ids in responses] for responses in ctx.response_ids()], np.float64)
        ratios = np.log(lengths[:, 1]) - np.log(lengths[:, 0])
        sign = 1 if self.options.prefer == "longer" else -1
        flipped = drawn(NAME, ctx, self.options.rate, log_sigmoid(sign * ratios / self.options.temperature))
        notes = {row: f"{lengths[row, 0]:.0f} chosen, {lengths[row, 1]:.0f} rejected tokens" for row in flipped}
        longer = means("rejected_over_chosen", np.exp(ratios), flipped)
        return Selection(flipped=flipped, notes=notes, facts=longer)


CARD = SelectorCard(
    name=NAME,
    target=f"{__name__}:LengthFlips",
    options=LengthFlipsOptions,
    summary="Flips labels in favour of the longer response",
    family="noise",
    formula="y_w ↔ y_l for round(rate·N) rows, drawn ∝ σ(ln(|y_l|/|y_w|)/temperature)",
    shapes=frozenset({"pairs"}),
    verified=(
        Verified(against="the stated probabilities", test="test_the_first_row_drawn_follows_the_weights"),
        Verified(against="the stated counts", test="test_noise_flips_exactly_its_rate_and_higher_rates_more"),
    ),
)
