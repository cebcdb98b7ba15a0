"""KTO on pairs: each side against an estimate of the KL from the other side.

    ℓ = ½·[ 1 − σ( β·(a − z_l) ) ] + ½·[ 1 − σ( β·(z_w − b) ) ]
    a, b = log π − log π_ref of the chosen and the rejected response
    z_w = max(0, mean a),     z_l = max(0, mean b)     over the step's pairs

The ``kto_pair`` of older TRL and of SamPO, after Ethayarajh, Xu, Muennighoff, Jurafsky, Kiela, *KTO: Model Alignment as
Prospect Theoretic Optimization*, arXiv 2402.01306. Log-probs are sums over response tokens, in nats; β is in 1/nats.
The responses of the estimate belong to the prompts they are evaluated on, so it is not the paper's z₀: use ``kto``
unless you reproduce an older run.

Deviations: those trainers return the two halves as 2B values; a pair has one value here, their mean, so the objective
is the same. They also let gradients flow through z_w and z_l; here, as in the paper, these are constants. They are
means over the pairs of the whole optimizer step, clamped after the mean.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Verified
from alignzoo_losses.unpaired import kto


class KTOPairOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class KTOPair(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: KTOPairOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        kl_chosen, kl_rejected = (side.detach().mean().clamp(min=0) for side in (chosen, rejected))
        beta = self.options.beta
        return (torch.sigmoid(beta * (kl_rejected - chosen)) + torch.sigmoid(beta * (rejected - kl_chosen))) / 2

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="kto-pair",
    target=f"{__name__}:KTOPair",
    options=KTOPairOptions,
    summary="KTO on pairs, with a KL estimate from the other side (older TRL)",
    family="losses of single responses",
    formula="½·(1 − σ(β(a − z_l))) + ½·(1 − σ(β(z_w − b))); z_w = max(0, mean a), z_l = max(0, mean b)",
    paper=kto.CARD.paper,
    needs=frozenset({"reference"}),
    batch_coupled=True,
    expected_failures={"gradcheck": "z_w and z_l are constants, as in the paper: no gradient flows through them"},
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="kto with KL responses of the other side", test="test_kto_pair_is_the_mean_of_two_ktos"),
    ),
)
