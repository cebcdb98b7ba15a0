"""Methods that keep their contract in unusual ways: the rules must let them pass."""

from __future__ import annotations

from typing import Any, Literal

import lying_losses as losses
from liars import card
from lying_controllers import Ascent, Rho
from pydantic import Field, model_validator

from alignzoo.errors import IncompatibleError
from alignzoo.interfaces import GeometryController, PreferenceLoss, RobustWrapper, StepLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Options


class EverythingOptions(Options):
    """Options that lean on one another, one without a default, one that no type describes."""

    beta: float = Field(gt=0, le=5, description="scale")
    use: Literal["margin", "focal"] = Field("margin", description="shape")
    gamma: float | None = Field(None, gt=0, description="exponent (use focal)")
    tiers: tuple[float, ...] = Field((1.0, 1.0, 1.0), examples=[(1.0, 0.5, 0.25)], description="weight per group")

    @model_validator(mode="after")
    def _gamma_goes_with_focal(self) -> EverythingOptions:
        if (self.use == "focal") != (self.gamma is not None):
            raise ValueError("gamma goes with use focal")
        return self


class Everything(PreferenceLoss):
    """Uses token log-probs, scores, groups and the reference."""

    options: EverythingOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        assert pairs.chosen_scores is not None
        assert pairs.rejected_scores is not None
        assert pairs.groups is not None
        gap = pairs.chosen_scores - pairs.rejected_scores
        values = F.softplus(-(chosen - rejected) + 0.1 * gap)
        if self.options.gamma is not None:
            values = values * torch.exp(self.options.gamma * F.logsigmoid(rejected - chosen))
        return values * torch.tensor(self.options.tiers, dtype=values.dtype)[pairs.groups]

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return self._reward(pairs), self._reward(pairs.swap())

    def _reward(self, pairs: PairBatch) -> torch.Tensor:
        assert pairs.chosen_token_logps is not None
        assert pairs.chosen_token_mask is not None
        assert pairs.ref_chosen_token_logps is not None
        ratios = (pairs.chosen_token_logps - pairs.ref_chosen_token_logps) * pairs.chosen_token_mask
        return self.options.beta * ratios.sum(-1) / pairs.chosen_token_mask.sum(-1)


class RunningOptions(Options):
    momentum: float = Field(0.9, ge=0, lt=1, description="of the offset")


class Running(PreferenceLoss):
    """Coupled through a running mean and through the step's own mean; both are declared, the first is saved."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.offset = torch.zeros((), dtype=torch.float64)

    def observe(self, pairs: PairBatch) -> None:
        margin = (pairs.chosen_logps - pairs.rejected_logps).double().mean()
        self.offset = self.options.momentum * self.offset + (1 - self.options.momentum) * margin

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        margin = pairs.chosen_logps - pairs.rejected_logps
        return F.softplus(-0.1 * (margin - self.offset.to(margin.dtype))) + 1e-3 * margin * margin.mean()

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.chosen_logps, pairs.rejected_logps

    def state_dict(self) -> dict[str, Any]:
        return {"offset": self.offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.offset = state["offset"]


class Transport(PreferenceLoss):
    """Coupled by rank: each chosen response is set against the rejected one of its own rank."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        ranks = chosen.detach().argsort().argsort()
        return F.softplus(-(chosen - rejected.sort().values[ranks]))

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.log_ratios()


class FlipOptions(Options):
    rate: float = Field(0.1, ge=0, lt=0.5, description="share of labels that are wrong")


class Flip(RobustWrapper):
    """Evaluates the loss on both orders of each pair, joined into one batch."""

    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        both = loss(PairBatch.cat([pairs, pairs.swap()]))
        rate, count = self.options.rate, len(pairs)
        return ((1 - rate) * both[:count] - rate * both[count:]) / (1 - 2 * rate)


class LateOptions(Rho):
    interval: int = Field(5, ge=1, description="perturb every so many steps")
    scope: Literal["step", "microbatch"] = Field("step", description="what the ascent sees")


class Late(Ascent):
    """SAM at intervals, per step or (as its scope says) per micro-batch."""

    def step(self, ctx: Any) -> StepLoss:
        if (ctx.step + 1) % self.options.interval:
            return ctx.backward()
        if self.options.scope == "step":
            return super().step(ctx)
        return ctx.join([super(Late, self).step(part) for part in ctx.parts()])


class AveragedOptions(Options):
    decay: float = Field(0.5, gt=0, lt=1, description="of the average")


class Averaged(GeometryController):
    """An average of gradients over steps, which is saved."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.average: dict[str, torch.Tensor] = {}

    def step(self, ctx: Any) -> StepLoss:
        loss = ctx.backward()
        for name, parameter in ctx.engine.model.named_parameters():
            if parameter.grad is not None:
                before = self.average.get(name, torch.zeros_like(parameter.grad))
                self.average[name] = torch.lerp(parameter.grad, before, self.options.decay)
                parameter.grad.copy_(self.average[name])
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = dict(state["average"])


class NoAdapters(GeometryController):
    """Refuses what it cannot do."""

    def setup(self, run: Any) -> None:
        if hasattr(run.model, "peft_config"):
            raise IncompatibleError("no-adapters needs all weights", hint="leave --lora.r out")

    def step(self, ctx: Any) -> StepLoss:
        return ctx.backward()


HONEST = [
    card(
        Everything,
        options=EverythingOptions,
        needs=frozenset({"reference", "token-logps", "scores", "groups"}),
    ),
    card(Running, options=RunningOptions, batch_coupled=True),
    card(Transport, needs=frozenset({"reference"}), batch_coupled=True),
    card(Flip, options=FlipOptions, needs=frozenset({"swap"}), around=frozenset({"pairs"})),
    card(losses.PerResponse, needs=losses.READS_KL, reads="responses", batch_coupled=True),
    card(losses.OfLists, needs=frozenset({"reference"}), reads="lists"),
    card(losses.Logs, reads="chosen", swaps=False),
    card(losses.WatchesAfterwards, reads="chosen", swaps=False),
    card(Late, options=LateOptions, passes=2),
    card(Averaged, options=AveragedOptions),
    card(NoAdapters),
]
