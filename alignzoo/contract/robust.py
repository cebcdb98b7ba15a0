"""Robust wrappers: how the values of a step are weighted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import field_validator

from alignzoo.contract.aggregation import FROM_SUMS
from alignzoo.contract.card import NONE, Card, Need
from alignzoo.contract.chosen import Choice, Chosen
from alignzoo.contract.loss import READS, Reads
from alignzoo.contract.method import Method
from alignzoo.errors import AlignzooError, IncompatibleError
from alignzoo.lazy import torch

Values = Callable[[Any], "torch.Tensor"]
"""Values ``(N,)`` of a batch: a loss, or a loss inside wrappers."""
POLICY_NEEDS: frozenset[Need] = frozenset({"token-logps", "reference-kl", "embedding-gradients"})
"""Needs whose fields depend on the policy beside the log-probs of responses."""


class RobustCard(Card):
    """The facts of a wrapper.

    Attributes:
        batch_coupled: a value's weight depends on the other values of the step.
        aggregates: it replaces the mean with its own :meth:`~RobustWrapper.objective`; a run can have only one.
        relabels: it replaces the data's label; a run can have only one.
        differentiates: it reads the derivative of a value in the pair's own log-probs, so a value inside may depend on
            no other pair and on nothing else that the policy computes.
        from_sums: it needs log-probs that are sums or means over tokens.
        around: the losses it can wrap, by what they read.
    """

    kind: Literal["robust"] = "robust"
    batch_coupled: bool = False
    aggregates: bool = False
    relabels: bool = False
    differentiates: bool = False
    from_sums: bool = False
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
            ("differentiates", "yes, it reads a value's derivative in the log-probs" if self.differentiates else ""),
            ("around", "any loss" if self.around == every else f"losses that read {', '.join(sorted(self.around))}"),
        ]


def conflicts(choice: Choice, launch: str) -> Iterator[AlignzooError]:
    """Wrappers that cannot wrap the first loss, or have no effect in their position."""
    wrappers = [(method.card, method) for method in choice["robust"] if isinstance(method.card, RobustCard)]
    first = choice["loss"][0].card
    reads = getattr(first, "reads", "pairs")
    for card, _ in wrappers:
        if reads not in card.around:
            yield IncompatibleError(
                f"robust {card.name!r} wraps losses that read {' or '.join(sorted(card.around))}, but loss "
                f"{first.name!r} reads {reads}",
                hint=f"leave out --robust {card.name}, or choose another loss",
                rule=f"the loss must read {_either(card.around)}",
            )
    yield from _without_effect(wrappers)
    yield from _out_of_order(wrappers)
    yield from _not_differentiable(choice, wrappers)
    yield from _without_sums(choice, wrappers)


def _either(reads: frozenset[Reads]) -> str:
    """What losses read, in words: ``pairs, labelled responses or ranked responses to a prompt``."""
    *others, last = [text for it, text in READS.items() if it in reads] or ["nothing"]
    return f"{', '.join(others)} or {last}" if others else last


Wrappers = Sequence[tuple[RobustCard, Chosen]]
"""The wrappers of a run, innermost first."""


def _without_effect(wrappers: Wrappers) -> Iterator[AlignzooError]:
    """Wrappers of both labels around one that takes the label from scores: those are swapped with the responses."""
    scored = ("reward", "scores")
    inside = next((i for i, (card, it) in enumerate(wrappers) if card.relabels and it.needs & {*scored}), len(wrappers))
    for card, it in wrappers[inside + 1 :]:
        if "swap" in it.needs and not card.relabels:
            name, within = card.name, wrappers[inside][0].name
            yield IncompatibleError(
                f"robust {name!r} has no effect around {within!r}, whose value is the same under the opposite label",
                hint=f"leave out --robust {name}, or put it first: --robust {name} --robust {within}",
                rule="both labels have the same value around a wrapper that takes the label from scores",
            )


def _out_of_order(wrappers: Wrappers) -> Iterator[AlignzooError]:
    """Wrappers around one that changes each value by the others of the step before it takes their mean."""
    for i, (card, it) in enumerate(wrappers[:-1]):
        if card.aggregates and "swap" in it.needs:
            outer = [other.name for other, _ in wrappers[i + 1 :]]
            yield IncompatibleError(
                f"robust {card.name!r} takes the mean over the step, so {' and '.join(outer)} cannot wrap it",
                hint=f"name it last: --robust {' --robust '.join([*outer, card.name])}",
                rule="a wrapper that takes the mean over the step must be the last",
            )


def _not_differentiable(choice: Choice, wrappers: Wrappers) -> Iterator[AlignzooError]:
    """Methods inside one that differentiates values in the pair's log-probs, if those are not all that they read."""
    for i, (card, _) in enumerate(wrappers):
        if not card.differentiates:
            continue
        alone = f"robust {card.name!r} differentiates each value in its own pair's log-probs"
        for inner in (choice["loss"][0], *(it for _, it in wrappers[:i])):
            kind, name = inner.card.kind, inner.card.name
            aggregates = getattr(inner.card, "aggregates", False)  # then its per_pair changes nothing
            if inner.couples and not (aggregates and "swap" not in inner.needs):
                yield IncompatibleError(
                    f"{alone}, but with {kind} {name!r} a value depends on other pairs as well",
                    hint=f"choose another {kind}, or leave out --robust {card.name}",
                    rule="a value may not depend on other pairs",
                )
            elif also := sorted(inner.needs & POLICY_NEEDS):
                yield IncompatibleError(
                    f"{alone}, but {kind} {name!r} also reads {' and '.join(also)} of the policy",
                    hint=f"choose another {kind}, or leave out --robust {card.name}",
                    rule="a value may depend on the policy through the log-probs of its pair only",
                )


def _without_sums(choice: Choice, wrappers: Wrappers) -> Iterator[AlignzooError]:
    """Wrappers that need sums or means, under another aggregation."""
    for card, _ in wrappers:
        for aggregation in choice["aggregation"] if card.from_sums else ():
            if (name := aggregation.card.name) not in FROM_SUMS:
                yield IncompatibleError(
                    f"robust {card.name!r} needs log-probs that are sums or means over tokens, and --aggregation "
                    f"{name} weighs or leaves out some",
                    hint=f"use --aggregation {' or '.join(FROM_SUMS)}, or leave out --robust {card.name}",
                    rule="log-probs must be sums or means over tokens",
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

    def reduce(self, losses: torch.Tensor, pairs: Any) -> torch.Tensor:
        """:meth:`objective`, with the batch at hand: override this one if it reads groups or scores.

        Args:
            losses: ``(N,)``, under all wrappers.
            pairs: the whole step's batch, as in :meth:`per_pair`.
        """
        return self.objective(losses)

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """The weight of each value, ``(N,)``, detached: by default the gradient of :meth:`objective`."""
        return _slopes(self.objective, losses)

    def weights_in(self, losses: torch.Tensor, pairs: Any) -> torch.Tensor:
        """:meth:`weights`, with the batch at hand: the gradient of :meth:`reduce` if that one is overridden."""
        if type(self).reduce is RobustWrapper.reduce:
            return self.weights(losses)
        return _slopes(lambda leaf: self.reduce(leaf, pairs), losses)

    def soft_labels(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor | None:
        """Label confidence of a relabelling wrapper for pairs with these scores ``(N,)``: 1 if the chosen response is
        certainly better. Shown for the training pairs before training; None shows nothing."""
        return None

    def observe(self, losses: torch.Tensor, pairs: Any) -> None:
        """Update running statistics; called like :meth:`PreferenceLoss.observe`, with the values ``(N,)``."""

    def observe_inside(self, loss: Values, pairs: Any) -> None:
        """Update running statistics from values that :meth:`observe` does not see: those of the wrapped ``loss``, also
        under the opposite label. Called with it, without gradients."""

    def metrics(self, losses: torch.Tensor, pairs: Any) -> Mapping[str, float | torch.Tensor]:
        """Numbers to log each step as ``robust/NAME/KEY``, from the whole step's values ``(N,)`` and batch."""
        return {}


def _slopes(objective: Values, losses: torch.Tensor) -> torch.Tensor:
    """The gradient of a scalar in the losses, ``(N,)``, detached."""
    with torch.enable_grad():
        leaf = losses.detach().clone().requires_grad_(True)
        return torch.autograd.grad(objective(leaf), leaf)[0]
