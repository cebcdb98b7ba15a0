"""A controller's view of a run and of a step, independent of the trainer that implements it.

:class:`alignzoo.step.context.StepContext` and :class:`alignzoo.step.setup.SetupContext` implement it; see
docs/steps.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from alignzoo.lazy import torch
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from alignzoo.contract.geometry import StepLoss


class MovingReference(Protocol):
    """The reference as a full copy of the model."""

    def mix(self, share: float) -> None:
        """Replace this share of every weight of the reference by what the policy computes with: 1 copies it."""

    def distance(self) -> float:
        """‖policy − reference‖, Euclidean over all weights."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights that have moved, for the controller's own state."""

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None: ...


class SetupContext(Protocol):
    """What a controller can read once, before training."""

    @property
    def model(self) -> torch.nn.Module:
        """The policy with the initial weights, unwrapped."""

    @property
    def seed(self) -> int: ...

    @property
    def report(self) -> Reporter: ...

    @property
    def probe(self) -> Callable[[str | None], Any]:
        """The safety probe of that model: trained now, reused, or loaded from the given folder."""

    @property
    def folder(self) -> Path | None:
        """The run folder; None on ranks that do not write."""

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole run; None outside a run."""

    @property
    def texts(self) -> Callable[[str | None, int], list[list[int]]]:
        """Token ids of this many general texts from a file, or else of training data."""

    @property
    def moving_reference(self) -> Callable[[], MovingReference]:
        """The reference, for a controller whose card says ``moves_reference``."""


class StepContext(Protocol):
    """One optimizer step. Every method evaluates the whole step's objective at the current weights."""

    step: int
    """0-based optimizer step."""
    metrics: dict[str, float]
    """The metrics added with :meth:`log` in this step."""

    @property
    def engine(self) -> Any:
        """The run's engine; ``engine.model`` is the model being trained."""

    @property
    def device(self) -> torch.device: ...

    def trainable(self) -> list[torch.nn.Parameter]:
        """The trainable weights: all, or an adapter's."""

    def named_trainable(self) -> dict[str, torch.nn.Parameter]:
        """The same by name."""

    def backward(self) -> StepLoss:
        """Add the objective's gradient to ``.grad`` of every trainable parameter."""

    def gradient(self, tensors: Sequence[torch.Tensor]) -> tuple[StepLoss, list[torch.Tensor]]:
        """The objective's gradient with respect to ``tensors`` only; no ``.grad`` is touched."""

    def evaluate(self) -> StepLoss:
        """The objective without any gradient."""

    def by_row(self, loss: StepLoss) -> torch.Tensor:
        """``(P,)``: the mean value over each row's pairs or responses in a report."""

    def anchored(self) -> StepContext:
        """This step with every log-prob relative to its value at the current weights."""

    def only(self, kept: torch.Tensor) -> StepContext:
        """This step with the objective of a subset of its rows, ``kept`` ``(P,)`` bool."""

    def parts(self) -> Iterator[StepContext]:
        """One context per micro-batch, each with its own objective."""

    def join(self, losses: Sequence[StepLoss]) -> StepLoss:
        """The whole step's report, from those of its parts."""

    def perturbed(
        self, weights: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor]
    ) -> AbstractContextManager[None]:
        """Inside, each weight is perturbed by its delta; afterwards, it is restored bit for bit."""

    def output_axes(self, weights: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
        """The dimensions of each weight that index its module's outputs."""

    def generator(self, purpose: str, *, per_rank: bool = False) -> torch.Generator:
        """A CPU generator for this step: the same on resume, and on all ranks unless requested otherwise."""

    def log(self, name: str, value: float | torch.Tensor) -> None:
        """Log ``geometry/<name>`` with this step's metrics."""
