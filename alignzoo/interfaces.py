"""Three interfaces that compose: a loss gives one value per pair, wrappers weigh the pairs, geometry chooses
where in weight space the gradient is taken. Beside them, a reward scores the responses before training.

A method's class is built from its validated options (``self.options``) and sees the model only through
:class:`~alignzoo.pairs.PairBatch` (losses, wrappers), the step context (controllers) or its own context (rewards).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Options
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch

if TYPE_CHECKING:
    from alignzoo.reward.context import Response, RewardContext
    from alignzoo.step.context import SetupContext, StepContext

PerPair = Callable[[PairBatch], "torch.Tensor"]


class _Method:
    """What all methods share: their options, and state that goes into checkpoints."""

    def __init__(self, options: Options) -> None:
        self.options: Any = options

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beyond the options: tensors, numbers and strings only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""


class PreferenceLoss(_Method):
    """One value per pair from its log-probs."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        """Loss of each pair, ``(B,)``, differentiable in the policy's fields. Never reduced."""
        raise NotImplementedError

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Implicit rewards ``(chosen, rejected)``, each ``(B,)``, for metrics."""
        raise NotImplementedError

    def observe(self, pairs: PairBatch) -> None:
        """Update running statistics; called once per optimizer step with the whole step's pairs, detached, before
        the first evaluation. Only a loss whose card says ``batch_coupled`` is called."""


class RobustWrapper(_Method):
    """How much each pair counts. Wrappers stack: the first named is the innermost."""

    def per_pair(self, loss: PerPair, pairs: PairBatch) -> torch.Tensor:
        """Value of each pair, ``(B,)``; may evaluate ``loss(pairs.swap())`` as well."""
        return loss(pairs)

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        """The scalar that is minimised, from the values ``(N,)`` of the whole optimizer step over all ranks."""
        return losses.mean()

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """How much each pair counts, ``(N,)``, detached: by default the gradient of :meth:`objective`."""
        with torch.enable_grad():
            leaf = losses.detach().clone().requires_grad_(True)
            return torch.autograd.grad(self.objective(leaf), leaf)[0]

    def observe(self, losses: torch.Tensor, pairs: PairBatch) -> None:
        """Update running statistics; called as :meth:`PreferenceLoss.observe` is, with the pairs' values ``(N,)``."""


@dataclass(frozen=True)
class StepLoss:
    """What a step reports.

    Attributes:
        value: the objective at the weights before the step, ``()``, detached.
        pairs: the whole optimizer step's pairs (all ranks), detached, at the same weights.
        pair_ids: ``(N,)`` int64, row numbers in the data.
    """

    value: torch.Tensor
    pairs: PairBatch
    pair_ids: torch.Tensor


class GeometryController(_Method):
    """Where in weight space the gradient of an optimizer step is taken."""

    def setup(self, run: SetupContext) -> None:
        """Called once before training, on the weights that training starts from."""

    def per_pair(self, loss: PerPair, pairs: PairBatch) -> torch.Tensor:
        """Value of each pair, ``(B,)``, inside of every wrapper; may evaluate ``loss(pairs.swap())`` as well."""
        return loss(pairs)

    def step(self, ctx: StepContext) -> StepLoss:
        """Leave the step's gradient in ``.grad`` and the weights, buffers and flags as they were found.

        Not called where the card says ``companion``.
        """
        raise NotImplementedError

    def after_step(self, ctx: StepContext) -> None:
        """Called when the optimizer has moved the weights: they may be read, and changed in place."""

    @contextmanager
    def for_evaluation(self) -> Iterator[None]:
        """A context manager: inside, the model has the weights to evaluate and to save; after, those to train on."""
        yield


class Reward(_Method):
    """A score for every response, from outside of the objective; nothing of it is left when training begins."""

    def setup(self, run: RewardContext) -> None:
        """Called once, on every rank, before anything is scored; what is heavy waits for :meth:`scores`."""

    def identity(self) -> str:
        """What the scores depend on beyond the options that are no paths, and beyond the responses: a hash of weights
        that are read, say. Equal identities mean equal scores, which are then taken from an earlier run."""
        return ""

    def scores(self, responses: Sequence[Response]) -> Sequence[float]:
        """One finite number per response, higher is better; that of a response does not depend on the others.

        Called on every rank, with some of the responses of its share at a time.
        """
        raise NotImplementedError
