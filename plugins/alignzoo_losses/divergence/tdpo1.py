"""Token-level DPO, first variant: the margin is offset by the difference of sequential KL divergences.

    ℓ = −log σ( β·[ h − (D_l − D_w) ] ),     D = Σ_t KL( π_ref(·|x, y_<t) ‖ π(·|x, y_<t) )

Zeng et al., *Token-level Direct Preference Optimization*, arXiv 2404.11999. h is the difference of log-ratios of
response sums; D sums over the same tokens; both are in nats, β is in 1/nats. Gradients flow through both D. ``tdpo2``
holds D_w constant and weighs the offset. Sums only: log-probs under another ``--aggregation`` would not match D.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.divergence.sequential import sequential_kls


class TDPO1Options(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class TDPO1(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref + D)."""

    options: TDPO1Options

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        chosen_kls, rejected_kls = sequential_kls(pairs)
        return self.options.beta * (chosen + chosen_kls), self.options.beta * (rejected + rejected_kls)


CARD = Card(
    kind="loss",
    name="tdpo1",
    target=f"{__name__}:TDPO1",
    options=TDPO1Options,
    summary="TDPO1: DPO offset by the difference of token-level KLs",
    family="divergences",
    formula="−log σ(β·[h − (D_l − D_w)]), D = Σ_t KL(π_ref ‖ π)",
    paper=Paper(
        title="Token-level Direct Preference Optimization",
        arxiv="2404.11999",
        authors=("Zeng, Yongcheng", "others"),
        venue="ICML 2024",
    ),
    needs=frozenset({"reference", "reference-kl"}),
    under=frozenset({"sum"}),
    addresses=frozenset({"overoptimisation"}),
    verified=(
        Verified(
            against="the authors' Vance0124/Token-level-Direct-Preference-Optimization@2a736ec",
            test="test_tdpo_equals_the_authors",
        ),
        Verified(against="limit D = 0: DPO", test="test_tdpo_without_kl_is_dpo"),
    ),
)
