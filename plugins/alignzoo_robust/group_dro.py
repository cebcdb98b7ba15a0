"""Group DRO: groups of the data with a high loss gain weight.

    L = Σ_g q_g·ℓ_g,     q_g ← q_g·exp(η·ℓ_g)/Z once per optimizer step, before the gradient

Ramesh et al., *Group Robust Preference Optimization in Reward-free RLHF*, arXiv 2405.20304 (their "GRPO", a name that
reinforcement learning took), after Sagawa et al., arXiv 1911.08731. ℓ_g is the mean over the values of group g in the
whole optimizer step over all ranks; the group is the data's column ``group``. With one group, L is the mean.

Groups without a value in a step keep their weight: the others share what they had together, and L is scaled so that
the weights in a step sum to 1. In the authors' code an absent group counts as ℓ_g = 0, so it loses weight to those
present, and L shrinks by its weight. η has the inverse unit of the loss.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.interfaces import RobustWrapper
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_robust.fields import groups_of


class GroupDROOptions(Options):
    """η, in the inverse unit of the loss."""

    eta: float = Field(0.01, ge=0, description="step size of the groups' weights; 0 keeps them equal")


class GroupDRO(RobustWrapper):
    """The mean over the step's groups, under weights that are state: ``log_weights`` by group index, 0 at first."""

    options: GroupDROOptions

    def __init__(self, options: GroupDROOptions) -> None:
        super().__init__(options)
        self.log_weights = torch.zeros(0, dtype=torch.float64)

    def observe(self, losses: torch.Tensor, pairs: Any) -> None:
        groups, places, counts = _present(losses, pairs)
        means = losses.new_zeros(len(groups)).index_add(0, places, losses) / counts
        before = self._of(groups)
        after = before + self.options.eta * means.to(before)
        after = after + torch.logsumexp(before, 0) - torch.logsumexp(after, 0)
        missing = int(groups.max()) + 1 - len(self.log_weights)
        if missing > 0:
            self.log_weights = torch.nn.functional.pad(self.log_weights, (0, missing))
        self.log_weights = self.log_weights.to(after.device).index_copy(0, groups, after.to(self.log_weights.dtype))

    def reduce(self, losses: torch.Tensor, pairs: Any) -> torch.Tensor:
        groups, places, counts = _present(losses, pairs)
        shares = torch.softmax(self._of(groups), 0).to(losses.dtype)
        return ((shares / counts)[places] * losses).sum()

    def metrics(self, losses: torch.Tensor, pairs: Any) -> dict[str, torch.Tensor]:
        """The largest and the smallest weight among the groups seen so far."""
        shares = torch.softmax(self.log_weights, 0) if len(self.log_weights) else losses.new_ones(1)
        return {"largest_weight": shares.max(), "smallest_weight": shares.min()}

    def state_dict(self) -> dict[str, Any]:
        return {"log_weights": self.log_weights.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.log_weights = state["log_weights"]

    def _of(self, groups: torch.Tensor) -> torch.Tensor:
        """The logarithm of these groups' weights, up to a constant; 0 for groups not seen before."""
        known = self.log_weights.to(groups.device)
        missing = max(0, int(groups.max()) + 1 - len(known))
        return torch.nn.functional.pad(known, (0, missing))[groups]


def _present(losses: torch.Tensor, pairs: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The groups in a step ``(G,)``, the place of each value's group among them ``(N,)``, and their sizes ``(G,)``."""
    return torch.unique(groups_of(pairs, len(losses)), return_inverse=True, return_counts=True)


CARD = Card(
    kind="robust",
    name="group-dro",
    target=f"{__name__}:GroupDRO",
    options=GroupDROOptions,
    summary="Group DRO: groups of the data with a high loss gain weight",
    formula="Σ_g q_g·ℓ_g, q_g ← q_g·exp(η·ℓ_g)/Z",
    paper=Paper(
        title="Group Robust Preference Optimization in Reward-free RLHF",
        arxiv="2405.20304",
        authors=("Ramesh, Shyam Sundhar", "others"),
        venue="NeurIPS 2024",
    ),
    aliases=("grpo-robust",),
    family="distributional robustness",
    addresses=frozenset({"distribution-shift"}),
    needs=frozenset({"groups"}),
    batch_coupled=True,
    aggregates=True,
    verified=(
        Verified(against="golden values", test="test_group_dro_equals_golden_value"),
        Verified(against="its limit of a single group: the mean", test="test_one_group_is_the_mean"),
        Verified(against="the multiplicative update, step by step", test="test_absent_groups_keep_their_weight"),
    ),
)
