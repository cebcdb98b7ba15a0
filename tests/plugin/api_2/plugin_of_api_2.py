"""A plugin as it was written for plugin API 2. It is not edited: while alignzoo speaks API 2, it has to work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from alignzoo.data.formats import Layout
from alignzoo.data.rows import Drop, FieldError, UnpairedRow
from alignzoo.interfaces import GeometryController, PreferenceLoss, RobustWrapper, StepLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Composition, Extension, Options, hookimpl


class LabelLossOptions(Options):
    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    decay: float = Field(0.5, ge=0, lt=1, description="decay of the running reward")


class LabelLoss(PreferenceLoss):
    """A logistic loss on each response's label, with a running baseline that is updated after the step."""

    options: LabelLossOptions
    baseline = 0.0

    def __call__(self, batch: Any) -> torch.Tensor:
        return F.softplus(-batch.labels * (self.rewards(batch) - self.baseline))

    def rewards(self, batch: Any) -> torch.Tensor:
        return self.options.beta * batch.log_ratios()

    def observe(self, batch: Any) -> None:
        reward = float(self.rewards(batch).mean())
        self.baseline = self.options.decay * self.baseline + (1 - self.options.decay) * reward

    def metrics(self, batch: Any) -> Mapping[str, float | torch.Tensor]:
        return {"desirable": (batch.labels > 0).double().mean(), "baseline": self.baseline}

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": self.baseline}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.baseline = state["baseline"]


class TiltOptions(Options):
    temperature: float = Field(1.0, gt=0, description="smaller: values above the mean count more")


class Tilt(RobustWrapper):
    """Log-mean-exp over the step's values, whatever these are of."""

    options: TiltOptions

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        scaled = losses / self.options.temperature
        return self.options.temperature * (torch.logsumexp(scaled, 0) - torch.full_like(scaled, 1).sum().log())

    def metrics(self, losses: torch.Tensor, batch: Any) -> Mapping[str, float | torch.Tensor]:
        return {"worst": losses.max(), "values": float(len(losses))}


class HalvedOptions(Options):
    scale: float = Field(0.5, gt=0, description="factor on the gradient")


class Halved(GeometryController):
    """The gradient times a factor."""

    options: HalvedOptions

    def step(self, ctx: Any) -> StepLoss:
        loss: StepLoss = ctx.backward()
        for parameter in ctx.trainable():
            if parameter.grad is not None:
                parameter.grad *= self.options.scale
        ctx.log("rows", float(len(loss.row_ids)))
        ctx.log("responses", float(len(loss.responses)))
        return loss


def _normalise(row: Mapping[str, Any]) -> UnpairedRow | Drop:
    for field in ("ask", "answer"):
        if not isinstance(row.get(field), str):
            raise FieldError(field, "is not text")
    return Drop("no-vote") if row["votes"] == 0 else UnpairedRow(row["ask"], row["answer"], row["votes"] > 0)


LAYOUT = Layout("voted", "ask, answer: text; votes: number", lambda row: "votes" in row, _normalise, shape="unpaired")


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    return [
        Card(
            kind="loss",
            name="label-loss",
            target=f"{__name__}:LabelLoss",
            options=LabelLossOptions,
            summary="a loss of API 2 on responses",
            formula="softplus(−y·(β·r − b))",
            reads="responses",
            needs=frozenset({"reference", "labels"}),
            api=2,
        ),
        Card(
            kind="robust",
            name="tilt",
            target=f"{__name__}:Tilt",
            options=TiltOptions,
            summary="a wrapper of API 2",
            formula="t·log mean exp(ℓ/t)",
            batch_coupled=True,
            aggregates=True,
            api=2,
        ),
        Card(
            kind="geometry",
            name="halved",
            target=f"{__name__}:Halved",
            options=HalvedOptions,
            summary="a controller of API 2",
            formula="c·∇L(θ)",
            api=2,
        ),
        Composition(
            kind="geometry", name="halved-tilt", summary="both", parts={"geometry": "halved", "robust": "tilt"}, api=2
        ),
    ]


@hookimpl
def alignzoo_formats() -> list[Extension]:
    return [Extension(kind="format", name="voted", target=f"{__name__}:LAYOUT", summary="ask, answer, votes", api=2)]
