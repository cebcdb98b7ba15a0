"""DPO on ranked lists: the Plackett–Luce likelihood of a ranking y_1 ≻ y_2 ≻ … ≻ y_k.

    ℓ = Σ_{i<k} [ log Σ_{j≥i} exp(s_j) − s_i ],     s = β·(log π(y|x) − log π_ref(y|x))

Rafailov et al., *Direct Preference Optimization: Your Language Model is Secretly a Reward Model*, arXiv 2305.18290,
appendix A.3. Log-probs are sums over response tokens, in nats; β is in 1/nats. One value per prompt, whatever the
length of its list: log k! at s = 0. With k = 2 it is DPO.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Verified
from alignzoo_losses.listwise.tables import DPO_PAPER


class PLDPOOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class PLDPO(PreferenceLoss):
    """Values ``(P,)`` of prompts; the rewards ``(R,)`` of their responses are β·(log π − log π_ref)."""

    options: PLDPOOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        places, real = responses.lists()
        scores = self.options.beta * responses.log_ratios()[places]  # (P, K), best first
        size = scores.shape[1]
        later = torch.ones(size, size, dtype=torch.bool, device=scores.device).triu()  # [i, j]: j ≥ i
        itself = torch.eye(size, dtype=torch.bool, device=scores.device)
        # A padding entry is summed over itself alone, so its term is 0, like the last response's.
        among = (later & real[:, None, :]) | itself
        total = scores[:, None, :].expand(-1, size, -1).masked_fill(~among, -torch.inf).logsumexp(-1)
        return torch.where(real, total - scores, 0.0).sum(-1)

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * responses.of_role(POLICY).log_ratios()


CARD = Card(
    kind="loss",
    name="pl-dpo",
    target=f"{__name__}:PLDPO",
    options=PLDPOOptions,
    summary="Plackett–Luce DPO: likelihood of a ranking of k responses",
    family="listwise losses",
    formula="Σ_{i<k} [log Σ_{j≥i} exp(s_j) − s_i], s = β·(log π − log π_ref), best first",
    aliases=("plackett-luce",),
    paper=DPO_PAPER,
    needs=frozenset({"reference"}),
    reads="lists",
    verified=(
        Verified(
            against="derivation (probability of the ranking, drawn sequentially)",
            test="test_pl_dpo_is_the_ranking",
        ),
        Verified(against="dpo where k = 2", test="test_pl_dpo_of_two_is_dpo"),
        Verified(against="golden values", test="test_pl_dpo_equals_golden_values"),
    ),
)
