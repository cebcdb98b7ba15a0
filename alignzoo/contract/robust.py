"""Robust wrappers: how much each value of a step counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import field_validator

from alignzoo.contract.card import Card
from alignzoo.contract.loss import Reads
from alignzoo.contract.method import Method
from alignzoo.lazy import torch

NO_WRAPPER = "none"
"""``--robust none`` takes away the wrappers of a recipe."""

Values = Callable[[Any], "torch.Tensor"]
"""Values ``(N,)`` of a batch: a loss, or a loss inside of wrappers."""


class RobustCard(Card):
    """The facts of a wrapper.

    Attributes:
        batch_coupled: what a value counts depends on the other values of the step.
        aggregates: it has an :meth:`~RobustWrapper.objective` of its own in place of the mean; a run has room for one.
        relabels: it puts a label of its own in the place of the data's; a run has room for one.
        around: the losses that it goes around, by what these read.
    """

    kind: Literal["robust"] = "robust"
    batch_coupled: bool = False
    aggregates: bool = False
    relabels: bool = False
    around: frozenset[Reads] = frozenset({"pairs", "responses", "lists", "chosen"})

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == NO_WRAPPER:
            raise ValueError(f"`--robust {NO_WRAPPER}` means no wrapper at all; choose another name")
        return name


class RobustWrapper(Method):
    """How much each value counts. Wrappers stack: the first named is the innermost."""

    def per_pair(self, loss: Values, pairs: Any) -> torch.Tensor:
        """Values ``(N,)`` of a batch; may evaluate ``loss(pairs.swap())`` as well.

        Args:
            pairs: what the loss reads: a :class:`~alignzoo.contract.pairs.PairBatch`, or a
                :class:`~alignzoo.contract.responses.ResponseBatch`.
        """
        return loss(pairs)

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        """The scalar that is minimised, from the values ``(N,)`` of the whole optimizer step over all ranks."""
        return losses.mean()

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """How much each value counts, ``(N,)``, detached: by default the gradient of :meth:`objective`."""
        with torch.enable_grad():
            leaf = losses.detach().clone().requires_grad_(True)
            return torch.autograd.grad(self.objective(leaf), leaf)[0]

    def soft_labels(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor | None:
        """How sure a wrapper that relabels is of pairs with these scores ``(N,)``: 1 where the chosen response is the
        better one for sure. Those of the training pairs are shown before training; None for nothing to show."""
        return None

    def observe(self, losses: torch.Tensor, pairs: Any) -> None:
        """Update running statistics; called as :meth:`PreferenceLoss.observe` is, with the values ``(N,)``."""

    def metrics(self, losses: torch.Tensor, pairs: Any) -> Mapping[str, float | torch.Tensor]:
        """Numbers to log with each step as ``robust/NAME/KEY``, from the whole step's values ``(N,)`` and batch."""
        return {}
