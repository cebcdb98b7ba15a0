"""DPO with an offset that grows with the difference in scores.

    ℓ = −log σ( β·h − α·f(s_w, s_l) ),     f = log(s_w − s_l)  (or log(s_w/s_l), or s_w − s_l)
    h = (log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x))

Amini, Vieira, Cotterell, *Direct Preference Optimization with an Offset*, arXiv 2402.10571. Log-probs are sums
over response tokens, in nats; β is in 1/nats; s are the scores of the run's reward or of the data. The offset is not
divided by β. A gap below 1 gives a negative offset: such a pair may even be ranked wrongly at a small loss.

Deviation: the authors' log of a gap ≤ 0 (a tie, or scores that contradict the label) is not a number. Here arguments of
the log are at least ``floor``, so such a pair costs next to nothing, which is what f → −∞ tends to.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class ODPOOptions(Options):
    """β, in 1/nats, and the offset."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    alpha: float = Field(1.0, ge=0, description="weight of the offset")
    offset: Literal["log-gap", "log-ratio", "gap"] = Field(
        "log-gap",
        description="log of the scores' difference, log of their ratio (positive scores), or the difference",
        json_schema_extra={"search": []},
    )
    floor: float = Field(0.01, gt=0, description="what smaller arguments of a log count as, negative ones included")


class ODPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref), without the offset."""

    options: ODPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected - self.options.alpha * self.offset(pairs).to(chosen.dtype))

    def offset(self, pairs: PairBatch) -> torch.Tensor:
        """f ``(B,)``.

        Raises:
            ValueError: the pairs have no scores.
        """
        chosen, rejected = pairs.chosen_scores, pairs.rejected_scores
        if chosen is None or rejected is None:
            raise ValueError("no scores: the method's card must declare needs={'scores'}")
        floor = self.options.floor
        if self.options.offset == "gap":
            return chosen - rejected
        if self.options.offset == "log-gap":
            return (chosen - rejected).clamp(min=floor).log()
        return chosen.clamp(min=floor).log() - rejected.clamp(min=floor).log()

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="odpo",
    target=f"{__name__}:ODPO",
    options=ODPOOptions,
    summary="ODPO: DPO with an offset from the difference in scores",
    family="logistic losses",
    formula="−log σ(β·h − α·log(s_w − s_l))",
    paper=Paper(
        title="Direct Preference Optimization with an Offset",
        arxiv="2402.10571",
        authors=("Amini, Afra", "Vieira, Tim", "Cotterell, Ryan"),
        venue="Findings of ACL 2024",
    ),
    needs=frozenset({"reference", "scores"}),
    verified=(
        Verified(against="the authors' rycolab/odpo@6152f67", test="test_adapted_losses_equal_the_authors"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="dpo where α = 0 or the gap is 1", test="test_limits_to_dpo"),
    ),
)
