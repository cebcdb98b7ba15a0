"""WDPO: a penalty on how fast the loss changes with the input embeddings, for a shift in the Wasserstein distance.

    ℓ' = ℓ + ρ·(‖∂ℓ/∂e_w‖² + ‖∂ℓ/∂e_l‖²)

Xu et al., *Robust LLM Alignment via Distributionally Robust Direct Preference Optimization*, arXiv 2502.01930; e are
the input embeddings of prompt and response. As in the authors' code; their paper has ρ·√(mean ‖∇ℓ‖²) over the step
instead. The model enters ℓ only through the pair's two log-probs, so ‖∂ℓ/∂e‖² = (∂ℓ/∂log π)²·‖∂ log π/∂e‖², and the
second factor is the field ``embedding_norms``, differentiable in the policy. So the penalty is exact however a step is
cut. It needs values that depend on their own pair's log-probs alone (the card's ``differentiates``), of the
aggregation ``sum`` or ``mean``. ρ has the inverse unit of the loss times that of a squared embedding. Not
``wdpo-winsor``, a method that its authors call wDPO.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from alignzoo.interfaces import RobustWrapper, Values
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class WDPOOptions(Options):
    """ρ, the size of the penalty."""

    rho: float = Field(0.01, ge=0, description="size of the penalty on the gradient in the input embeddings")


class WDPO(RobustWrapper):
    """Adds the penalty to each pair's value ``(B,)``."""

    options: WDPOOptions

    def per_pair(self, loss: Values, pairs: PairBatch) -> torch.Tensor:
        """Differentiable twice where gradients are enabled; the same value where they are not."""
        if pairs.chosen_embedding_norms is None or pairs.rejected_embedding_norms is None:
            raise ValueError("no embedding norms: the method's card must declare needs={'embedding-gradients'}")
        outside = torch.is_grad_enabled()
        with torch.enable_grad():
            chosen, rejected = (_differentiable(logps) for logps in (pairs.chosen_logps, pairs.rejected_logps))
            values = loss(replace(pairs, chosen_logps=chosen, rejected_logps=rejected))
            slopes = torch.autograd.grad(values.sum(), (chosen, rejected), create_graph=True, allow_unused=True)
            for slope, lengths, norms in zip(
                slopes,
                (pairs.chosen_lengths, pairs.rejected_lengths),
                (pairs.chosen_embedding_norms, pairs.rejected_embedding_norms),
                strict=True,
            ):
                if slope is not None:
                    of_sum = slope if pairs.aggregation in (None, "sum") else slope / lengths
                    values = values + self.options.rho * of_sum.square() * norms
        return values if outside else values.detach()

    def metrics(self, losses: torch.Tensor, pairs: PairBatch) -> dict[str, Any]:
        """The mean squared norm of a log-prob's gradient in the input embeddings."""
        assert pairs.chosen_embedding_norms is not None
        assert pairs.rejected_embedding_norms is not None
        return {"embedding_norm": (pairs.chosen_embedding_norms + pairs.rejected_embedding_norms).mean() / 2}


def _differentiable(logps: torch.Tensor) -> torch.Tensor:
    return logps if logps.requires_grad else logps.detach().requires_grad_(True)


CARD = Card(
    kind="robust",
    name="wdpo",
    target=f"{__name__}:WDPO",
    options=WDPOOptions,
    summary="WDPO: penalises the loss's gradient in the input embeddings",
    formula="ℓ + ρ·(‖∂ℓ/∂e_w‖² + ‖∂ℓ/∂e_l‖²)",
    paper=Paper(
        title="Robust LLM Alignment via Distributionally Robust Direct Preference Optimization",
        arxiv="2502.01930",
        authors=("Xu, Zaiyan", "Vemuri, Sushil", "Panaganti, Kishan", "others"),
    ),
    family="distributional robustness",
    addresses=frozenset({"distribution-shift"}),
    needs=frozenset({"embedding-gradients"}),
    around=frozenset({"pairs"}),
    differentiates=True,
    from_sums=True,
    verified=(
        Verified(
            against="the authors' TheBlackCat22/distributionally_robust_dpo@d6dc68b",
            test="test_wdpo_equals_the_authors",
        ),
        Verified(against="closed form around DPO, value and gradient", test="test_wdpo_under_dpo"),
        Verified(against="autograd through a model's embeddings", test="test_wdpo_equals_autograd_through_a_model"),
        Verified(against="its limit ρ = 0: the loss", test="test_wdpo_without_a_penalty"),
    ),
)
