"""Geometry controllers: where in weight space the gradient of a step is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from alignzoo.contract.card import Card, Need
from alignzoo.contract.chosen import Choice
from alignzoo.contract.method import Method
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.responses import ResponseBatch
from alignzoo.contract.step import SetupContext, StepContext
from alignzoo.errors import AlignzooError, IncompatibleError
from alignzoo.lazy import torch

READ_FROM_REFERENCE: frozenset[Need] = frozenset({"reference", "reference-kl", "reference-entropy"})
"""Needs for which there is a reference."""


class GeometryCard(Card):
    """The facts of a controller.

    Attributes:
        companion: it leaves the gradient to another controller and acts after the optimizer step; a run can have any
            number of companions next to the one that takes the gradient.
        averages: a companion whose weights are evaluated and saved in place of the trained ones; a run can have one.
        moves_reference: a companion that changes the reference's weights, which is then a full copy of the model; a run
            can have one.
        anchors: it evaluates the loss relative to an anchor that replaces the reference (``ctx.anchored()``).
        passes: maximum number of forward-backward passes per step.
        sharded: it works on sharded weights, of which a rank holds some rows (DTensors, under FSDP2), also in setup.
    """

    kind: Literal["geometry"] = "geometry"
    companion: bool = False
    averages: bool = False
    moves_reference: bool = False
    anchors: bool = False
    passes: int = Field(default=1, ge=1)
    sharded: bool = False

    def facts(self) -> list[tuple[str, str]]:
        averages = "; its weights are evaluated and saved" if self.averages else ""
        averages += "; moves the reference" if self.moves_reference else ""
        passes = f"at most {self.passes} forward-backward {'pass' if self.passes == 1 else 'passes'} per step"
        return [
            ("passes", "" if self.companion else passes),
            ("companion", f"yes, acts after the optimizer step{averages}" if self.companion else ""),
            ("sharded weights", "yes, under FSDP2" if self.sharded else "no: launch with plain data parallelism"),
        ]


def conflicts(choice: Choice, launch: str) -> Iterator[AlignzooError]:
    """Controllers that need whole weights on a launch that shards them, one that moves a reference that no method
    reads, and one that anchors a loss which cannot be."""
    needs = frozenset[Need]().union(*(method.needs for methods in choice.values() for method in methods))
    for method in choice["geometry"]:
        if getattr(method.card, "moves_reference", False) and not needs & READ_FROM_REFERENCE:
            yield IncompatibleError(
                f"geometry {method.card.name!r} moves the reference, but no method of this run reads it",
                hint="leave it out, or choose a loss that compares the policy with a reference",
                rule="a method of the run must read the reference",
            )
    loss = choice["loss"][0].card
    for method in choice["geometry"]:
        if getattr(method.card, "anchors", False) and not getattr(loss, "anchorable", True):
            yield IncompatibleError(
                f"geometry {method.card.name!r} puts an anchor in the reference's place, and loss {loss.name!r} "
                "recognises pairs by the reference's log-probs",
                hint=f"choose another loss, or leave out --geometry {method.card.name}",
                rule="the loss must not recognise pairs by the reference's log-probs",
            )
    for method in choice["geometry"] if launch == "fsdp" else ():
        if not getattr(method.card, "sharded", False):
            yield IncompatibleError(
                f"geometry {method.card.name!r} does not support sharded weights (no `sharded` on its card)",
                hint="use plain data parallelism (--parallel ddp), or choose another geometry",
                rule="it does not support sharded weights",
            )


@dataclass(frozen=True)
class StepLoss:
    """The report of a step.

    Attributes:
        value: the objective at the weights before the step, ``()``, detached.
        responses: the whole optimizer step's responses (all ranks), detached, at the same weights.
        row_ids: ``(P,)`` int64, the prompts' row numbers in the data.
    """

    value: torch.Tensor
    responses: ResponseBatch
    row_ids: torch.Tensor

    @property
    def pairs(self) -> PairBatch:
        """The responses as pairs."""
        return self.responses.pairs()

    @property
    def pair_ids(self) -> torch.Tensor:
        """:attr:`row_ids` of a step of pairs."""
        return self.row_ids


class GeometryController(Method):
    """Where in weight space the gradient of an optimizer step is taken."""

    retired: ClassVar[dict[str, str]] = {
        "per_pair": "controllers no longer change the values of pairs; write a robust wrapper, and a Composition "
        "of kind geometry that names both"
    }

    def setup(self, run: SetupContext) -> None:
        """Called once before training, with the initial weights."""

    def step(self, ctx: StepContext) -> StepLoss:
        """Leave the step's gradient in ``.grad``, and the weights, buffers and flags unchanged.

        Not called if the card says ``companion``.
        """
        raise NotImplementedError

    def after_step(self, ctx: StepContext) -> None:
        """Called after the optimizer has updated the weights: they may be read, and changed in place."""

    @contextmanager
    def for_evaluation(self) -> Iterator[None]:
        """A context manager: inside, the model has the weights to evaluate and save (before the first step, the initial
        ones); afterwards, those to train on."""
        yield
