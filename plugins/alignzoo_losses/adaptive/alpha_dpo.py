"""α-DPO: SimPO with a target margin that follows each pair's margin over the reference.

    ℓ = −log σ( β·[ m̄_w − m̄_l − sg( γ/β + α·(M − μ)/s ) ] )
    m̄ = log π(y|x)/|y|,     M = (log π_w − log π_ref,w)/|y_w| − (log π_l − log π_ref,l)/|y_l|

Wu et al., *α-DPO: Adaptive Reward Margin is What Direct Preference Optimization Needs*, arXiv 2410.10148. |y| is the
response's length in tokens; γ/β is in nats per token, and so is α; β is in tokens per nat. μ and s are moving averages
of the mean and the standard deviation of M over the pairs of an optimizer step, that of all ranks, updated before the
step's loss. No gradient flows through the margin. The defaults are the authors' for Llama 3.

Deviation: the averages are corrected for their start at 0. In the authors' code s is a tenth of the standard deviation
at the first step, and the standardised margins ten times what they should be.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.adaptive.running import RunningMoments


class AlphaDPOOptions(Options):
    """β, in tokens per nat; γ/β and α, in nats per token."""

    beta: float = Field(10.0, gt=0, description="scale of the per-token reward")
    gamma_beta_ratio: float = Field(
        0.4,
        ge=0,
        description="mean target reward margin γ as a multiple of beta",
        json_schema_extra={"search": [0.0, 1.0]},
    )
    alpha: float = Field(
        0.2,
        ge=0,
        description="how much of the target follows the pair's margin over the reference",
        json_schema_extra={"search": [0.01, 0.5]},
    )


class AlphaDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β times the average log-prob of a response's tokens."""

    options: AlphaDPOOptions

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._moments = RunningMoments()

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.per_token()
        return -F.logsigmoid(self.options.beta * (chosen - rejected - self.target(pairs)))

    def target(self, pairs: PairBatch) -> torch.Tensor:
        """The margin ``(B,)`` that pairs should have, in nats per token, detached."""
        standardised = self._moments.standardised(self._over_reference(pairs))
        return self.options.gamma_beta_ratio + self.options.alpha * standardised

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.per_token()
        return self.options.beta * chosen, self.options.beta * rejected

    def observe(self, pairs: PairBatch) -> None:
        self._moments.update(self._over_reference(pairs))

    def metrics(self, pairs: PairBatch) -> dict[str, Any]:
        """μ and s, in nats per token."""
        return {"margin_mean": self._moments.mean, "margin_std": self._moments.std}

    def _over_reference(self, pairs: PairBatch) -> torch.Tensor:
        """M ``(B,)``."""
        chosen, rejected = pairs.log_ratios_per_token()
        return (chosen - rejected).detach()

    def state_dict(self) -> dict[str, Any]:
        return self._moments.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._moments.load_state_dict(state)


CARD = Card(
    kind="loss",
    name="alpha-dpo",
    target=f"{__name__}:AlphaDPO",
    options=AlphaDPOOptions,
    summary="Alpha-DPO: SimPO with a target margin that adapts to each pair",
    family="adaptive losses",
    formula="−log σ(β·[log π_w/|y_w| − log π_l/|y_l| − sg(γ/β + α·(M − μ)/s)])",
    paper=Paper(
        title="α-DPO: Adaptive Reward Margin is What Direct Preference Optimization Needs",
        arxiv="2410.10148",
        authors=("Wu, Junkang", "others"),
    ),
    needs=frozenset({"reference"}),
    aggregation="mean",
    under=frozenset({"mean"}),  # the margins are per token; β saturates on sums
    batch_coupled=True,
    expected_failures={
        "gradcheck": "the target margin moves with the policy's margin, and by definition passes no gradient"
    },
    verified=(
        Verified(against="the authors' junkangwu/alpha-DPO@fab3209", test="test_adapted_losses_equal_the_authors"),
        Verified(against="simpo where α = 0", test="test_alpha_dpo_without_alpha_is_simpo"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
