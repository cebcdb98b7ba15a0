"""What a controller sees of a run and of a step: the verbs that the contract promises, whatever trainer gives them.

:class:`alignzoo.step.context.StepContext` and :class:`alignzoo.step.setup.SetupContext` have them. docs/steps.md says
more.
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


class SetupContext(Protocol):
    """What a controller may look at once, before training."""

    @property
    def model(self) -> torch.nn.Module:
        """The policy with the weights training starts from, unwrapped."""

    @property
    def seed(self) -> int: ...

    @property
    def report(self) -> Reporter: ...

    @property
    def probe(self) -> Callable[[str | None], Any]:
        """The safety probe of that model: trained now, reused, or read from the given folder."""

    @property
    def folder(self) -> Path | None:
        """The run folder; None on ranks that do not write."""

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole run, None outside of one."""

    @property
    def texts(self) -> Callable[[str | None, int], list[list[int]]]:
        """Token ids of so many general texts from a file, or else of training data."""


class StepContext(Protocol):
    """One optimizer step. Every verb evaluates the whole step's objective at the weights as they are now."""

    step: int
    """0-based optimizer step."""
    metrics: dict[str, float]
    """What :meth:`log` has put into this step's line."""

    @property
    def engine(self) -> Any:
        """Of the run; ``engine.model`` is the model that is trained."""

    @property
    def device(self) -> torch.device: ...

    def trainable(self) -> list[torch.nn.Parameter]:
        """The weights that the optimizer moves: all, or an adapter's."""

    def named_trainable(self) -> dict[str, torch.nn.Parameter]:
        """The same by name."""

    def backward(self) -> StepLoss:
        """Add the objective's gradient to ``.grad`` of every trainable parameter."""

    def gradient(self, tensors: Sequence[torch.Tensor]) -> tuple[StepLoss, list[torch.Tensor]]:
        """The objective's gradient with respect to ``tensors`` only; no ``.grad`` is touched."""

    def evaluate(self) -> StepLoss:
        """The objective without any gradient."""

    def by_row(self, loss: StepLoss) -> torch.Tensor:
        """``(P,)``: the mean value of each row's pairs or responses in a report."""

    def anchored(self) -> StepContext:
        """This step with every log-prob measured from its value at the weights as they are now."""

    def only(self, kept: torch.Tensor) -> StepContext:
        """This step with the objective of some of its rows, ``kept`` ``(P,)`` bool."""

    def parts(self) -> Iterator[StepContext]:
        """One context per micro-batch, with an objective of its own."""

    def join(self, losses: Sequence[StepLoss]) -> StepLoss:
        """The report of the whole step from those of its parts."""

    def perturbed(
        self, weights: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor]
    ) -> AbstractContextManager[None]:
        """Inside, each weight is at its value plus its delta; after, its exact bits again."""

    def output_axes(self, weights: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
        """The dimensions of each weight that number its module's outputs."""

    def generator(self, purpose: str, *, per_rank: bool = False) -> torch.Generator:
        """A CPU generator for a draw of this step: the same on resume, and on all ranks unless asked."""

    def log(self, name: str, value: float | torch.Tensor) -> None:
        """Put ``geometry/<name>`` into this step's line of metrics."""
