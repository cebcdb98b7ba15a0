"""Binary Classifier Optimization: the reward as the logit of a classifier of desirable responses.

    ℓ = −log σ( r − δ )  of a desirable response,   −log σ( δ − r )  of an undesirable one
    r = β·( log π(y|x) − log π_ref(y|x) ),     δ = mean of r over all responses of all steps so far

Jung, Han, Nam, On, *Binary Classifier Optimization for Large Language Model Alignment*, arXiv 2404.04656. Log-probs are
sums over response tokens, in nats; β is in 1/nats. The paper uses β = 0.01, TRL's former BCO trainer 0.1, the default
here. Each response counts once in δ (it is not a moving average that forgets), and no gradient flows through it. A step
first adds the rewards of all of its responses, on all ranks, to δ and then computes its loss; evaluation leaves δ as
it is. The two terms of a pair, if its responses are of different prompts or not, add up as in ``bco-pair`` with δ.

Left out: the paper's underlying distribution matching, a weight of undesirable responses from a classifier of prompt
embeddings, which is only for data whose two labels come from different prompts.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.unpaired.labels import labels_of


class BCOOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class BCO(PreferenceLoss):
    """Values and rewards ``(N,)`` of the policy's responses; the rewards are β·(log π − log π_ref), without δ."""

    options: BCOOptions

    def __init__(self, options: BCOOptions) -> None:
        super().__init__(options)
        self._shift: torch.Tensor | None = None
        self._count = 0

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        rewards = self.rewards(responses)
        return -F.logsigmoid(labels_of(responses) * (rewards - self._shift_like(rewards)))

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * responses.of_role(POLICY).log_ratios()

    def observe(self, responses: ResponseBatch) -> None:
        """Add a step's rewards to δ."""
        rewards = self.rewards(responses).detach()
        if len(rewards) == 0:
            return
        self._count += len(rewards)
        shift = self._shift_like(rewards)
        self._shift = shift + (rewards.mean() - shift) * (len(rewards) / self._count)

    def metrics(self, responses: ResponseBatch) -> dict[str, torch.Tensor]:
        return {"shift": self._shift_like(responses.logps)}

    def state_dict(self) -> dict[str, Any]:
        return {"shift": None if self._shift is None else self._shift.clone(), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._shift, self._count = state["shift"], state["count"]

    def _shift_like(self, values: torch.Tensor) -> torch.Tensor:
        """δ ``()``, 0 before the first step."""
        return values.new_zeros(()) if self._shift is None else self._shift.to(values)


CARD = Card(
    kind="loss",
    name="bco",
    target=f"{__name__}:BCO",
    options=BCOOptions,
    summary="BCO: binary classification of responses, relative to the mean reward",
    family="losses of single responses",
    formula="−log σ(r − δ), −log σ(δ − r); r = β·(log π − log π_ref), δ the mean of r over all steps so far",
    paper=Paper(
        title="Binary Classifier Optimization for Large Language Model Alignment",
        arxiv="2404.04656",
        authors=("Jung, Seungjae", "Han, Gunsoo", "Nam, Daniel Wontae", "On, Kyoung-Woon"),
    ),
    needs=frozenset({"reference", "labels"}),
    reads="responses",
    batch_coupled=True,
    verified=(
        Verified(against="golden values", test="test_bco_equals_golden_values"),
        Verified(
            against="closed form (mean of all rewards so far)", test="test_the_shift_of_bco_is_the_mean_of_history"
        ),
        Verified(against="bco-pair, where δ is 0", test="test_bco_without_shift_is_bco_pair"),
    ),
)
