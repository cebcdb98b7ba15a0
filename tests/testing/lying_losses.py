"""Losses of responses, lists and chosen ones that break their contract, methods that log what is no number, and
wrappers that go around more than they can read."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.contract.responses import KL, POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss, RobustWrapper
from alignzoo.lazy import F, torch
from alignzoo.plugin import Options

READS_KL = frozenset({"reference", "labels", "mismatched"})


class PerResponse(PreferenceLoss):
    """Honest: the logistic loss of a log-ratio under its label, less the mean of the mismatched ones."""

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        own = responses.of_role(POLICY)
        assert own.labels is not None
        return F.softplus(-own.labels * (self.rewards(responses) - self._kl(responses)))

    def _kl(self, responses: ResponseBatch) -> torch.Tensor | float:
        return 0.1 * responses.of_role(KL).log_ratios().detach().mean()

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return 0.1 * responses.of_role(POLICY).log_ratios()


class WithoutKL(PerResponse):
    def _kl(self, responses: ResponseBatch) -> torch.Tensor | float:
        return 0.0


class ValuesOfKL(PerResponse):
    """A value for every response of the batch, those to other prompts included."""

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        return F.softplus(-0.1 * responses.log_ratios())


class RewardsByLabel(PerResponse):
    """What a response earns must not hang on its label: it is compared with others'."""

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        own = responses.of_role(POLICY)
        assert own.labels is not None
        return 0.1 * own.labels * own.log_ratios()


class DetachedResponses(PerResponse):
    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        values = super().__call__(responses)
        return values + values.detach() ** 2


class OfLists(PreferenceLoss):
    """Honest: how far the best response of each list is ahead of the mean of all."""

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        places, real = responses.lists()
        scores = self.rewards(responses)[places]
        return F.softplus(self._mean(scores, real) - scores[:, 0])

    def _mean(self, scores: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return (scores * real).sum(-1) / real.sum(-1)

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return 0.1 * responses.log_ratios()


class AsWideAsTheLongest(OfLists):
    """The mean over the width of the batch, which is that of the longest list."""

    def _mean(self, scores: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return (scores * real).mean(-1)


class FirstIsBest(OfLists):
    """Takes the first response of each list for the best, whatever its rank."""

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        first = torch.cat([torch.ones(1, dtype=torch.bool), responses.prompt[1:] != responses.prompt[:-1]])
        return F.softplus(-self.rewards(responses)[first])


class OfChosen(PreferenceLoss):
    """Honest: the negative log-likelihood."""

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        return -responses.logps

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return responses.logps


class Shared(OfChosen):
    """Divides by the number of responses that happen to be there."""

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        return -responses.logps / len(responses)


class TokensOptions(Options):
    by_token: bool = Field(False, description="divide by the mean length of the step")


class CouplesByAnOption(OfChosen):
    """With an option it reads the others' lengths, and the options do not say so."""

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        share = responses.lengths.mean() if self.options.by_token else 1.0
        return -responses.logps / share


class Logs(OfChosen):
    """Honest: logs the mean log-prob."""

    def metrics(self, responses: ResponseBatch) -> Any:
        return {"mean_logp": responses.logps.mean(), "count": len(responses)}


class LogsAWord(Logs):
    def metrics(self, responses: ResponseBatch) -> Any:
        return {"size": "large"}


class LogsAVector(Logs):
    def metrics(self, responses: ResponseBatch) -> Any:
        return {"logps": responses.logps}


class LogsNaN(Logs):
    def metrics(self, responses: ResponseBatch) -> Any:
        return {"mean": responses.logps[:0].mean()}


class LogsUnderAnOddName(Logs):
    def metrics(self, responses: ResponseBatch) -> Any:
        return {"mean log-prob": 1.0}


class MovesWhileItLogs(Logs):
    offset = 0.0

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        return self.offset - responses.logps

    def metrics(self, responses: ResponseBatch) -> Any:
        self.offset += 0.1
        return {"offset": self.offset}


class WatchesAfterwards(OfChosen):
    """Honest: a running scale that moves when the step is over, and that checkpoints hold."""

    scale = 1.0

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        return -responses.logps / self.scale

    def observe(self, responses: ResponseBatch) -> None:
        self.scale = 0.9 * self.scale + 0.1 * float(responses.lengths.mean())

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"]


class ForgetsAfterwards(WatchesAfterwards):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class OneSided(RobustWrapper):
    """Reads what only pairs have."""

    def per_pair(self, loss: Any, pairs: Any) -> torch.Tensor:
        return loss(pairs) * (1 + 0.01 * pairs.chosen_lengths)


class WrapperThatLogsAWord(RobustWrapper):
    def metrics(self, losses: torch.Tensor, pairs: Any) -> Any:
        return {"largest": str(losses.max())}
