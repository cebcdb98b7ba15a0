"""Binary Classifier Optimization on pairs, without a reward shift.

    ℓ = −log σ( r_w ) − log σ( −r_l ),     r = β·( log π(y|x) − log π_ref(y|x) )

The form that TRL 1.16 calls ``bco_pair``: that of Jung, Han, Nam, On, *Binary Classifier Optimization for Large
Language Model Alignment*, arXiv 2404.04656, with δ = 0, although TRL's documentation prints the formula with δ. With
its running mean δ, the paper's method is ``bco``. Log-probs are sums over response tokens, in nats; β is in 1/nats.
"""

from __future__ import annotations

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Verified
from alignzoo_losses.unpaired import bco


class BCOPair(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: bco.BCOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen) - F.logsigmoid(-rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="bco-pair",
    target=f"{__name__}:BCOPair",
    options=bco.BCOOptions,
    summary="BCO on pairs without a reward shift, TRL's bco_pair",
    family="losses of single responses",
    formula="−log σ(r_w) − log σ(−r_l), r = β·(log π − log π_ref)",
    paper=bco.CARD.paper,
    needs=frozenset({"reference"}),
    verified=(
        Verified(against="TRL 1.16", test="test_losses_equal_trl_on_its_own_batch"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
