"""DPO under Thurstone's model of a comparison.

    ℓ = −log Φ( β·h ),     h = (log π_w − log π_ref,w) − (log π_l − log π_ref,l)

Φ is the standard normal distribution function. DPO takes Bradley and Terry's model, P(w ≻ l) = σ(β·h); this takes
Thurstone's Case V, in which both responses have a normally distributed worth of equal variance and the one that is
worth more is chosen: L. L. Thurstone, *A law of comparative judgment*, Psychological Review 34 (1927), 273–286. β·h is
the difference of mean worths in units of its standard deviation. Log-probs are sums over response tokens, in nats, so β
has the unit 1/nats; as the logistic distribution is about 1.7 times as wide, DPO's β corresponds to β/1.7 here.

Where it matters: against a pair that the policy gets wrong, DPO's gradient levels off at β; this one grows with the
margin. It trusts the labels more.
"""

from __future__ import annotations

import math

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from pydantic import Field


class ProbitDPOOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class ProbitDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: ProbitDPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -log_normal_cdf(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


def log_normal_cdf(x: torch.Tensor) -> torch.Tensor:
    """log Φ(x), elementwise, any shape; value and gradient are accurate in both tails.

    ``torch.special.log_ndtr`` has the values, but derives its gradient as exp(−x²/2 − log Φ(x)): in float32 the two
    large numbers cancel (−3233 in place of −5000 at x = −5000), and it has no kernel for bfloat16. Here Φ's tail is
    written with the scaled erfcx, whose logarithm is small, and −x²/2 is differentiated on its own. Half precision is
    computed in float32 and given back in its own dtype.
    """
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    # Each branch sees only arguments of its own side: an infinite value in the branch that is not taken would still
    # put a NaN into the gradient.
    left, right = wide.clamp(max=0), wide.clamp(min=0)
    below = torch.special.erfcx(-left / math.sqrt(2)).div(2).log() - left.square() / 2
    above = torch.log1p(-torch.special.erfc(right / math.sqrt(2)) / 2)
    return torch.where(wide < 0, below, above).to(x.dtype)


CARD = Card(
    api=1,
    kind="loss",
    name="probit-dpo",
    target="alignzoo_example.probit_dpo:ProbitDPO",
    options=ProbitDPOOptions,
    summary="DPO under Thurstone's model: normal in place of logistic noise in the comparison",
    formula="−log Φ(β·[(log π_w − log π_ref,w) − (log π_l − log π_ref,l)])",
    paper=Paper(title="A law of comparative judgment"),
    needs=frozenset({"reference"}),
    verified=(
        Verified(against="Python's statistics.NormalDist", test="test_value_equals_the_standard_library"),
        Verified(against="the tail's asymptotic series", test="test_tails_are_accurate"),
    ),
)
