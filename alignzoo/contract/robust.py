"""Robust wrappers: how the values of a step are weighted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import field_validator

from alignzoo.contract.card import NONE, Card
from alignzoo.contract.chosen import Choice
from alignzoo.contract.loss import Reads
from alignzoo.contract.method import Method
from alignzoo.errors import AlignzooError, IncompatibleError
from alignzoo.lazy import torch

Values = Callable[[Any], "torch.Tensor"]
"""Values ``(N,)`` of a batch: a loss, or a loss inside wrappers."""


class RobustCard(Card):
    """The facts of a wrapper.

    Attributes:
        batch_coupled: a value's weight depends on the other values of the step.
        aggregates: it replaces the mean with its own :meth:`~RobustWrapper.objective`; a run can have only one.
        relabels: it replaces the data's label; a run can have only one.
        around: the losses it can wrap, by what they read.
    """

    kind: Literal["robust"] = "robust"
    batch_coupled: bool = False
    aggregates: bool = False
    relabels: bool = False
    around: frozenset[Reads] = frozenset({"pairs", "responses", "lists", "chosen"})

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == NONE:
            raise ValueError(f"`--robust {NONE}` means no wrapper; choose another name")
        return name

    def facts(self) -> list[tuple[str, str]]:
        coupled = "yes, a value's weight depends on the others in the step" if self.batch_coupled else "no"
        every = {"pairs", "responses", "lists", "chosen"}
        return [
            ("batch-coupled", coupled),
            ("aggregates", "yes, it replaces the mean over the step" if self.aggregates else ""),
            ("relabels", "yes, it replaces the data's labels" if self.relabels else ""),
            ("around", "any loss" if self.around == every else f"losses that read {', '.join(sorted(self.around))}"),
        ]


def conflicts(choice: Choice, launch: str) -> Iterator[AlignzooError]:
    """Wrappers that cannot wrap the first loss, or have no effect in their position."""
    wrappers = [(method.card, method.needs) for method in choice["robust"] if isinstance(method.card, RobustCard)]
    first = choice["loss"][0].card
    reads = getattr(first, "reads", "pairs")
    for card, _ in wrappers:
        if reads not in card.around:
            yield IncompatibleError(
                f"robust {card.name!r} wraps losses that read {' or '.join(sorted(card.around))}, but loss "
                f"{first.name!r} reads {reads}",
                hint=f"leave out --robust {card.name}, or choose another loss",
            )
    inside = next((i for i, (card, _) in enumerate(wrappers) if card.relabels), len(wrappers))
    for card, needs in wrappers[inside + 1 :]:
        if "swap" in needs and not card.relabels:
            name, within = card.name, wrappers[inside][0].name
            yield IncompatibleError(
                f"robust {name!r} has no effect around {within!r}, whose value is the same under the opposite label",
                hint=f"leave out --robust {name}, or put it first: --robust {name} --robust {within}",
            )


class RobustWrapper(Method):
    """Weights the values of a step. Wrappers stack: the first named is the innermost."""

    def per_pair(self, loss: Values, pairs: Any) -> torch.Tensor:
        """Values ``(N,)`` of a batch; may also evaluate ``loss(pairs.swap())``.

        Args:
            pairs: the loss's input: a :class:`~alignzoo.contract.pairs.PairBatch`, or a
                :class:`~alignzoo.contract.responses.ResponseBatch`.
        """
        return loss(pairs)

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        """The scalar to minimise, from the values ``(N,)`` of the whole optimizer step over all ranks."""
        return losses.mean()

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """The weight of each value, ``(N,)``, detached: by default the gradient of :meth:`objective`."""
        with torch.enable_grad():
            leaf = losses.detach().clone().requires_grad_(True)
            return torch.autograd.grad(self.objective(leaf), leaf)[0]

    def soft_labels(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor | None:
        """Label confidence of a relabelling wrapper for pairs with these scores ``(N,)``: 1 if the chosen response is
        certainly better. Shown for the training pairs before training; None shows nothing."""
        return None

    def observe(self, losses: torch.Tensor, pairs: Any) -> None:
        """Update running statistics; called like :meth:`PreferenceLoss.observe`, with the values ``(N,)``."""

    def metrics(self, losses: torch.Tensor, pairs: Any) -> Mapping[str, float | torch.Tensor]:
        """Numbers to log each step as ``robust/NAME/KEY``, from the whole step's values ``(N,)`` and batch."""
        return {}
