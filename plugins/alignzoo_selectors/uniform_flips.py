"""Uniform label noise: every training row is as likely to get the opposite label as any other.

    y_w ↔ y_l  for round(rate·N) rows, drawn uniformly without replacement

The noise that Wu et al. ("Towards Robust Alignment of Language Models: Distributionally Robustifying Direct Preference
Optimization") call pairwise noise, and that rDPO and cDPO assume. ``--label-noise`` is the same noise as a setting of
the run, applied before all selectors; as a selector it takes its place in the stack, for example after duplicates were
dropped, and it draws other rows than ``--label-noise`` does, so that the two add up.
"""

from __future__ import annotations

from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.plugin import Paper, SelectorCard, Verified
from alignzoo_selectors.noise import FLIPPABLE, RateOptions, drawn

NAME = "uniform-flips"


class UniformFlips(Selector):
    """Flips rows at random."""

    options: RateOptions

    def select(self, ctx: SelectionContext) -> Selection:
        flipped = drawn(NAME, ctx, self.options.rate)
        return Selection(flipped=flipped, notes=dict.fromkeys(flipped, "uniform"))


CARD = SelectorCard(
    name=NAME,
    target=f"{__name__}:UniformFlips",
    options=RateOptions,
    summary="Flips the labels of randomly drawn rows",
    family="noise",
    formula="y_w ↔ y_l for round(rate·N) rows, drawn uniformly",
    paper=Paper(
        title="Towards Robust Alignment of Language Models: Distributionally Robustifying Direct Preference "
        "Optimization",
        arxiv="2407.07880",
        authors=("Wu, Junkang", "others"),
        venue="ICLR 2025",
    ),
    shapes=FLIPPABLE,
    verified=(Verified(against="the stated counts", test="test_noise_flips_exactly_its_rate_and_higher_rates_more"),),
)
