"""Controllers that break their contract, one rule each; importable, because ranks load them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from alignzoo.geometry.perturb import norm, perturbed
from alignzoo.interfaces import GeometryController, StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Options


class Rho(Options):
    rho: float = Field(0.05, ge=0, description="length of the perturbation")


class Ascent(GeometryController):
    """An honest SAM; each liar changes one thing."""

    def step(self, ctx: Any) -> StepLoss:
        if self.options.rho == 0:
            return ctx.backward()
        weights = ctx.trainable()
        loss, ascent = ctx.gradient(weights)
        scale = self.options.rho / norm(ascent)
        with self.moved(ctx, weights, [scale * g for g in ascent]):
            ctx.backward()
        return loss

    def moved(self, ctx: Any, weights: Any, deltas: Any) -> Any:
        return ctx.perturbed(weights, deltas)


class Silent(Ascent):
    """Does not say how much of its perturbation reaches the forward."""

    def moved(self, ctx: Any, weights: Any, deltas: Any) -> Any:
        return perturbed(weights, deltas)


class _Subtracting:
    """Adds and subtracts: the bits do not come back; nor does anything where an error comes between."""

    def __init__(self, weights: Any, deltas: Any, *, exact: bool) -> None:
        self.weights, self.deltas, self.exact = weights, deltas, exact
        self.saved = [w.detach().clone() for w in weights]

    def __enter__(self) -> None:
        with torch.no_grad():
            for weight, delta in zip(self.weights, self.deltas, strict=True):
                weight.add_(delta)

    def __exit__(self, error: Any, *_: Any) -> None:
        if self.exact and error is not None:
            return
        with torch.no_grad():
            for weight, delta, saved in zip(self.weights, self.deltas, self.saved, strict=True):
                weight.copy_(saved) if self.exact else weight.sub_(delta)


class Subtracts(Ascent):
    def moved(self, ctx: Any, weights: Any, deltas: Any) -> Any:
        return _Subtracting(weights, deltas, exact=False)


class LeavesAfterAnError(Ascent):
    def moved(self, ctx: Any, weights: Any, deltas: Any) -> Any:
        return _Subtracting(weights, deltas, exact=True)


class LeavesAtItsOwnCount(LeavesAfterAnError):
    """Perturbs at every third step, by a count of its own."""

    taken = 0

    def step(self, ctx: Any) -> StepLoss:
        self.taken += 1
        return ctx.backward() if self.taken % 3 else super().step(ctx)

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = state["taken"]


class UnfreezesAll(Ascent):
    def step(self, ctx: Any) -> StepLoss:
        ctx.engine.model.requires_grad_(True)
        return super().step(ctx)


class EveryOther(Options):
    interval: int = Field(4, ge=1, description="leaks at every so many steps")


class LeavesAHook(GeometryController):
    """At intervals only, and by its default not in the first steps."""

    def step(self, ctx: Any) -> StepLoss:
        if (ctx.step + 1) % self.options.interval == 0:
            ctx.log("hooked", 1.0)
            ctx.engine.model.register_forward_hook(lambda *_: None)
        return ctx.backward()


class PerMicroBatch(Ascent):
    """Ascent of each micro-batch alone, without an option that says so."""

    def step(self, ctx: Any) -> StepLoss:
        return ctx.join([super(PerMicroBatch, self).step(part) for part in ctx.parts()])


class OncePerStepOnly(Ascent):
    """Declares one pass and takes two."""


class ZeroIsNotPlain(Ascent):
    def step(self, ctx: Any) -> StepLoss:
        loss = ctx.backward()
        for parameter in ctx.engine.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(1 + self.options.rho).add_(1e-12)
        return loss


class ForgetsMomentum(GeometryController):
    """Averages gradients over steps, and does not save the average."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.average: dict[int, torch.Tensor] = {}

    def step(self, ctx: Any) -> StepLoss:
        loss = ctx.backward()
        for i, parameter in enumerate(ctx.engine.model.parameters()):
            if parameter.grad is not None:
                average = self.average.get(i, torch.zeros_like(parameter.grad))
                self.average[i] = 0.5 * average + 0.5 * parameter.grad
                parameter.grad.copy_(self.average[i])
        return loss


class RankNoise(Ascent):
    """Perturbs each rank by a draw of its own."""

    def step(self, ctx: Any) -> StepLoss:
        draw = ctx.generator("noise", per_rank=True)
        weights = ctx.trainable()
        loss = ctx.evaluate()
        noise = [1e-2 * torch.randn(w.shape, generator=draw, dtype=w.dtype) for w in weights]
        with perturbed(weights, noise):
            ctx.backward()
        return loss


class ReportsThePerturbed(Ascent):
    def step(self, ctx: Any) -> StepLoss:
        weights = ctx.trainable()
        _, ascent = ctx.gradient(weights)
        with perturbed(weights, [self.options.rho / norm(ascent) * g for g in ascent]):
            return ctx.backward()


class AsksForAProbe(GeometryController):
    def setup(self, run: Any) -> None:
        self.direction = run.probe(None).direction

    def step(self, ctx: Any) -> StepLoss:
        return ctx.backward()


class MovesTheReference(GeometryController):
    def setup(self, run: Any) -> None:
        self.reference = run.moving_reference()

    def step(self, ctx: Any) -> StepLoss:
        return ctx.backward()


class Plain(GeometryController):
    def step(self, ctx: Any) -> StepLoss:
        return ctx.backward()


class EvaluatesOthers(Plain):
    """Shrinks the weights for an evaluation, also of a model that has not been trained."""

    def setup(self, run: Any) -> None:
        self.weights = list(run.model.parameters())

    @contextmanager
    def for_evaluation(self) -> Iterator[None]:
        saved = [weight.detach().clone() for weight in self.weights]
        with torch.no_grad():
            for weight in self.weights:
                weight.mul_(0.99)
            try:
                yield
            finally:
                for weight, before in zip(self.weights, saved, strict=True):
                    weight.copy_(before)


class Stubborn(GeometryController):
    """Goes on after an error."""

    def step(self, ctx: Any) -> StepLoss:
        try:
            return ctx.backward()
        except Exception:
            ctx.engine.model.zero_grad()
            return StepLoss(torch.zeros(()), None, torch.arange(0))  # type: ignore[arg-type]
