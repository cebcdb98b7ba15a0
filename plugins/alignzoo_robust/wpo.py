"""WPO: pairs count by how likely the current policy is to generate them.

    ℓ' = w·ℓ,   w = sg[min(1, exp(ŵ_w + ŵ_l))],   ŵ = (1/|y|) Σ_t [log π(y_t) − log Σ_v π(v)²]

Zhou et al., *WPO: Enhancing RLHF with Weighted Preference Optimization*, arXiv 2406.11827, with its alignment of the
weights: Σ_v π(v)² is the probability of a token that the policy samples itself. Weights are constants (sg), in no unit.
``cap=False`` is TRL's ``use_weighting``, which leaves out the minimum. ``--loss wpo`` is ``--loss dpo --robust wpo``.
The average per token is that of the sums, so it needs the aggregation ``sum`` or ``mean``.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import RobustWrapper, Values
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Composition, Options, Paper, Verified

PAPER = Paper(
    title="WPO: Enhancing RLHF with Weighted Preference Optimization",
    arxiv="2406.11827",
    authors=("Zhou, Wenxuan", "others"),
    venue="EMNLP 2024",
)


class WPOOptions(Options):
    """Whether weights are capped."""

    cap: bool = Field(True, description="no weight above 1, as in the authors' code; TRL leaves this out")


class WPO(RobustWrapper):
    """Multiplies each pair's value ``(B,)`` by its weight."""

    options: WPOOptions

    def of_pairs(self, pairs: PairBatch) -> torch.Tensor:
        """w ``(B,)``, detached.

        Raises:
            ValueError: the pairs have no collision probabilities.
        """
        if pairs.chosen_collisions is None or pairs.rejected_collisions is None:
            raise ValueError("no collisions: the method's card must declare needs={'collisions'}")
        summed = pairs.aggregation in (None, "sum")
        exponent = -pairs.chosen_collisions / pairs.chosen_lengths - pairs.rejected_collisions / pairs.rejected_lengths
        for logps, lengths in (
            (pairs.chosen_logps, pairs.chosen_lengths),
            (pairs.rejected_logps, pairs.rejected_lengths),
        ):
            exponent = exponent + (logps / lengths if summed else logps)
        return (exponent.clamp(max=0) if self.options.cap else exponent).exp().detach()

    def per_pair(self, loss: Values, pairs: PairBatch) -> torch.Tensor:
        return self.of_pairs(pairs) * loss(pairs)

    def metrics(self, losses: torch.Tensor, pairs: PairBatch) -> dict[str, torch.Tensor]:
        """The mean and the least weight."""
        weights = self.of_pairs(pairs)
        return {"weight_mean": weights.mean(), "weight_min": weights.min()}


CARD = Card(
    kind="robust",
    name="wpo",
    target=f"{__name__}:WPO",
    options=WPOOptions,
    summary="WPO: pairs weighted by the current policy's own probability of them",
    formula="sg[min(1, exp(ŵ_w + ŵ_l))]·ℓ, ŵ = mean_t [log π(y_t) − log Σ_v π(v)²]",
    paper=PAPER,
    family="weights",
    addresses=frozenset({"distribution-shift"}),
    needs=frozenset({"collisions"}),
    around=frozenset({"pairs"}),
    from_sums=True,
    expected_failures={"gradcheck": "the weights are constants of the step, as in the paper"},
    verified=(
        Verified(against="TRL 1.16 (`use_weighting`)", test="test_wpo_equals_trl"),
        Verified(against="closed form from log-probs and collisions", test="test_wpo_weights"),
    ),
)

COMPOSITION = Composition(
    name="wpo",
    summary="WPO as published: DPO weighted by the policy's own probability",
    paper=PAPER,
    family="logistic losses",
    addresses=frozenset({"distribution-shift"}),
    loss="dpo",
    robust=("wpo",),
)
