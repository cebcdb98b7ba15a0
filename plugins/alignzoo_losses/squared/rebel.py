"""REBEL: regress the difference of rewards on the difference of log-ratios.

    ℓ = ( h/η − (s_w − s_l) )²  (paper),     η²·ℓ = ( h − η·(s_w − s_l) )²  (code)
    h = (log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x))

Gao et al., *REBEL: Reinforcement Learning via Regressing Relative Rewards*, arXiv 2404.16767, on given responses:
the reference is the policy that the step starts from there, and the frozen reference here. Log-probs are sums over
response tokens, in nats; s are the scores of the run's reward or of the data; η is in nats per unit of score, so no
default suits every reward (the authors use 1 and 10⁶). The two forms have the same minimum and need different learning
rates. Which response is called chosen does not matter.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class REBELOptions(Options):
    """η, in nats per unit of score, and the scale of the loss."""

    eta: float = Field(1.0, gt=0, description="log-ratio per unit of score; depends on the scale of the reward")
    form: Literal["paper", "code"] = Field(
        "paper", description="scale: that of the paper, or η² times it", json_schema_extra={"search": []}
    )


class REBEL(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are (log π − log π_ref)/η, in the unit of the scores."""

    options: REBELOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        """``(B,)``.

        Raises:
            ValueError: the pairs have no scores.
        """
        if pairs.chosen_scores is None or pairs.rejected_scores is None:
            raise ValueError("no scores: the method's card must declare needs={'scores'}")
        chosen, rejected = pairs.log_ratios()
        gap = (pairs.chosen_scores - pairs.rejected_scores).to(chosen.dtype)
        eta = self.options.eta
        if self.options.form == "code":
            return (chosen - rejected - eta * gap) ** 2
        return ((chosen - rejected) / eta - gap) ** 2

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return chosen / self.options.eta, rejected / self.options.eta


CARD = Card(
    kind="loss",
    name="rebel",
    target=f"{__name__}:REBEL",
    options=REBELOptions,
    summary="REBEL: regression of score differences on log-ratio differences",
    family="squared losses",
    formula="(h/η − (s_w − s_l))²",
    paper=Paper(
        title="REBEL: Reinforcement Learning via Regressing Relative Rewards",
        arxiv="2404.16767",
        authors=(
            "Gao, Zhaolin",
            "Chang, Jonathan D.",
            "Zhan, Wenhao",
            "Oertell, Owen",
            "Swamy, Gokul",
            "Brantley, Kianté",
            "Joachims, Thorsten",
            "Bagnell, J. Andrew",
            "Lee, Jason D.",
            "Sun, Wen",
        ),
        venue="NeurIPS 2024",
    ),
    needs=frozenset({"reference", "scores"}),
    swaps=False,  # the scores go with the sides: the value is the same under either label
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="ipo where s_w − s_l = 1, η = 1/(2τ)", test="test_limits_to_ipo"),
        Verified(against="its symmetry in the two responses", test="test_rebel_does_not_read_the_label"),
    ),
)
