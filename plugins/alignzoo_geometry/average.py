"""An average of the trained weights that replaces them while the model is evaluated and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alignzoo.contract.geometry import GeometryController
from alignzoo.distributed.shards import beside
from alignzoo.errors import UsageError
from alignzoo.geometry.perturb import norm
from alignzoo.lazy import torch

if TYPE_CHECKING:
    from alignzoo.contract.step import SetupContext, StepContext


class WeightAverage:
    """An average of weights over optimizer steps, in fp32 or wider, on the weights' device.

    Args:
        model: its trainable weights are only read, except inside :meth:`in_place`.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._average = [_wide(weight) for weight in self._weights]
        self.count = 0

    @property
    def _weights(self) -> list[torch.Tensor]:
        """Looked up on use: sharding replaces them."""
        return [weight for weight in self._model.parameters() if weight.requires_grad]

    def include(self, share: Callable[[int], float]) -> None:
        """Move the average towards the weights by ``share(n)``, where n counts this call from 1."""
        self.count += 1
        weights = self._weights
        self._average = beside(self._average, weights)
        with torch.no_grad():
            for average, weight in zip(self._average, weights, strict=True):
                average.lerp_(weight.detach().to(average.dtype), share(self.count))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the weights hold the average; afterwards, their exact bits. Does nothing before :meth:`include`."""
        if self.count == 0:
            yield
            return
        weights = self._weights
        saved = [weight.detach().clone() for weight in weights]
        try:
            _copy(beside(self._average, weights), weights)
            yield
        finally:
            _copy(saved, weights)

    def distance(self) -> float:
        """‖average − weights‖, Euclidean over all weights."""
        return norm([a - w.detach() for a, w in zip(self._average, self._weights, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        return {"average": [average.clone() for average in self._average], "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average = [average.clone() for average in state["average"]]
        self.count = state["count"]


class Averaging(GeometryController):
    """A companion whose average is evaluated and saved; a subclass defines in ``share`` the weight of the current
    weights in its n-th update, from 1. Options: ``interval`` and ``start``, in optimizer steps."""

    name: str

    def share(self, n: int) -> float:
        """Weight of the current weights, from 0 to 1; 1 in the first update."""
        raise NotImplementedError

    def setup(self, run: SetupContext) -> None:
        """Start from the initial weights.

        Raises:
            UsageError: the run is too short for a single update.
        """
        _check_schedule(self.name, start=self.options.start, interval=self.options.interval, steps=run.steps)
        self.average = WeightAverage(run.model)

    def after_step(self, ctx: StepContext) -> None:
        if _is_due(ctx.step, start=self.options.start, interval=self.options.interval):
            self.average.include(self.share)
            ctx.log(f"{self.name}_distance", self.average.distance())

    @contextmanager
    def for_evaluation(self) -> Iterator[None]:
        with self.average.in_place():
            yield

    def state_dict(self) -> dict[str, Any]:
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state)


def _check_schedule(name: str, *, start: int, interval: int, steps: int | None) -> None:
    """Check that a run of ``steps`` optimizer steps updates the average at all.

    Raises:
        UsageError: it does not, so that the plain weights would be saved as the average.
    """
    if steps is not None and start + interval > steps:
        raise UsageError(
            f"--geometry {name} would never be updated: its first update is after step {start + interval}, but the run "
            f"has only {steps}",
            hint=f"lower --geometry.{name}.start or --geometry.{name}.interval",
        )


def _is_due(step: int, *, start: int, interval: int) -> bool:
    """Whether the average is updated after the 0-based ``step``: every ``interval`` steps from ``start`` on."""
    after = step + 1 - start
    return after > 0 and after % interval == 0


def _wide(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)


def _copy(source: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for value, place in zip(source, target, strict=True):
            place.copy_(value)
