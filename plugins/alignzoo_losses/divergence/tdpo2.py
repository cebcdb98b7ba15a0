"""Token-level DPO, second variant: the rejected response's KL is pushed towards the chosen one's.

    ℓ = −log σ( β·[ h − α·(D_l − sg[D_w]) ] ),     D = Σ_t KL( π_ref(·|x, y_<t) ‖ π(·|x, y_<t) )

Zeng et al., *Token-level Direct Preference Optimization*, arXiv 2404.11999. h is the difference of log-ratios of
response sums; D sums over the same tokens; both are in nats, β is in 1/nats. No gradient flows through D_w; under the
opposite label that is the other response's D. Sums only: log-probs under another ``--aggregation`` would not match D.
The rewards are those that the authors log, β·(log π − log π_ref + D), without α.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.divergence.sequential import sequential_kls


class TDPO2Options(Options):
    """β, in 1/nats, and the weight of the KLs."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    alpha: float = Field(0.5, ge=0, description="weight of the difference of sequential KLs; 0 is DPO")


class TDPO2(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref + D)."""

    options: TDPO2Options

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        chosen_kls, rejected_kls = sequential_kls(pairs)
        offset = self.options.alpha * (rejected_kls - chosen_kls.detach())
        return -F.logsigmoid(self.options.beta * (chosen - rejected - offset))

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        chosen_kls, rejected_kls = sequential_kls(pairs)
        return self.options.beta * (chosen + chosen_kls), self.options.beta * (rejected + rejected_kls)


CARD = Card(
    kind="loss",
    name="tdpo2",
    target=f"{__name__}:TDPO2",
    options=TDPO2Options,
    summary="TDPO2: DPO that keeps the rejected response's KL near the chosen's",
    family="divergences",
    formula="−log σ(β·[h − α·(D_l − sg[D_w])]), D = Σ_t KL(π_ref ‖ π)",
    paper=Paper(
        title="Token-level Direct Preference Optimization",
        arxiv="2404.11999",
        authors=("Zeng, Yongcheng", "others"),
        venue="ICML 2024",
    ),
    needs=frozenset({"reference", "reference-kl"}),
    under=frozenset({"sum"}),
    addresses=frozenset({"overoptimisation"}),
    aliases=("tdpo",),
    verified=(
        Verified(
            against="the authors' Vance0124/Token-level-Direct-Preference-Optimization@2a736ec",
            test="test_tdpo_equals_the_authors",
        ),
        Verified(against="limit α = 0: DPO", test="test_tdpo_without_kl_is_dpo"),
    ),
    expected_failures={"gradcheck": "D_w is a constant by definition, so autograd leaves out its part of the gradient"},
)
