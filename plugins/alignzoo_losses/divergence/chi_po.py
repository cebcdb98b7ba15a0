"""χPO: DPO whose link adds the likelihood ratio itself, a penalty of the χ²-divergence.

    ℓ = −log σ( clip( β·[ φ(a) − φ(b) ], ±2R ) ),     φ(x) = e^x + x
    a = log π_w − log π_ref,w,     b = log π_l − log π_ref,l

Huang et al., *Correcting the Mythos of KL-Regularization: Direct Alignment without Overoptimization via Chi-Squared
Preference Optimization*, arXiv 2407.13399. φ is the link of f(u) = ½(u − 1)² + u·log u. Log-ratios are sums over
response tokens, in nats; β scales the link, R bounds the rewards. By default nothing is clipped: a clipped pair has no
gradient, whichever way it is ranked. e^x beyond 40 nats continues along its tangent (``links.py``).
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.divergence import links


class ChiPOOptions(Options):
    """β, and the bound of rewards."""

    beta: float = Field(0.1, gt=0, description="strength of the constraint to the reference")
    radius: float | None = Field(
        None, gt=0, description="R: margins are clipped at ±2R (default: not clipped)", examples=[0.1, 1.0]
    )


class ChiPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(e^x + x) of the log-ratios x, not clipped."""

    options: ChiPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        margin = chosen - rejected
        if self.options.radius is not None:
            margin = margin.clamp(-2 * self.options.radius, 2 * self.options.radius)
        return -F.logsigmoid(margin)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * links.chi_squared_kl(chosen), self.options.beta * links.chi_squared_kl(rejected)


CARD = Card(
    kind="loss",
    name="chi-po",
    target=f"{__name__}:ChiPO",
    options=ChiPOOptions,
    summary="χPO: DPO with a mixed χ² and KL penalty",
    family="divergences",
    formula="−log σ(clip(β·[φ(a) − φ(b)], ±2R)), φ(x) = e^x + x",
    paper=Paper(
        title="Correcting the Mythos of KL-Regularization: Direct Alignment without Overoptimization via Chi-Squared "
        "Preference Optimization",
        arxiv="2407.13399",
        authors=("Huang, Audrey", "others"),
        venue="ICLR 2025",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"overoptimisation"}),
    experimental="not confirmed: the authors' β and clipping radius, and whether they clip before or after β",
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="the definition of f, differentiated by autograd", test="test_links_are_derivatives_of_f"),
    ),
)
