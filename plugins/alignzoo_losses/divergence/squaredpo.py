"""SquaredPO: f-DPO with a non-convex f that resists displacement of the chosen response.

    ℓ = −log σ( β·[ a·e^{−a} − b·e^{−b} ] ),     a = log π_w − log π_ref,w,     b = log π_l − log π_ref,l

Pipano et al., *Displacement-Resistant Extensions of DPO with Nonconvex f-Divergences*, arXiv 2602.06788: f(u) =
½·(log u)², so f'(e^x) = x·e^{−x}. Log-ratios are sums over response tokens, in nats; β scales the link. x·e^{−x} rises
up to x = 1 and falls from there, so the loss pulls a chosen log-ratio above 1 nat back down. It is stiff for sums:
e^{−x} beyond 40 nats continues along its tangent (``links.py``). No code has been released; the loss follows from f by
the rule of f-DPO.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.divergence import links


class SquaredPOOptions(Options):
    """β."""

    beta: float = Field(0.1, gt=0, description="strength of the constraint to the reference")


class SquaredPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·x·e^{−x} of the log-ratios x."""

    options: SquaredPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * links.squared_log(chosen), self.options.beta * links.squared_log(rejected)


CARD = Card(
    kind="loss",
    name="squaredpo",
    target=f"{__name__}:SquaredPO",
    options=SquaredPOOptions,
    summary="SquaredPO: f-DPO with f = ½·log², against displacement",
    family="divergences",
    formula="−log σ(β·[a·e^{−a} − b·e^{−b}]), a and b the log-ratios",
    paper=Paper(
        title="Displacement-Resistant Extensions of DPO with Nonconvex f-Divergences",
        arxiv="2602.06788",
        authors=("Pipano, Idan", "Sabach, Shoham", "Asadi, Kavosh", "Ghavamzadeh, Mohammad"),
        venue="ICLR 2026",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"displacement"}),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="the definition of f, differentiated by autograd", test="test_links_are_derivatives_of_f"),
    ),
)
