"""Selectors: which training rows a run uses, in what order, under which labels, after which beginnings of an answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from alignzoo.contract.card import Card
from alignzoo.contract.chosen import Choice
from alignzoo.contract.method import Method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.contract.shapes import SHAPES, Shape
from alignzoo.errors import AlignzooError, IncompatibleError
from alignzoo.report import Reporter

if TYPE_CHECKING:
    import numpy as np
    import torch


class SelectorCard(Card):
    """The facts of a selector.

    Attributes:
        shapes: the shapes of data that it reads.
        loads: whether it asks for the policy (:attr:`SelectionContext.model`); the others run before any weights load.
        orders: whether it sets the order in which training visits the rows.
    """

    kind: Literal["selector"] = "selector"
    shapes: frozenset[Shape] = frozenset(SHAPES)
    loads: bool = False
    orders: bool = False

    def facts(self) -> list[tuple[str, str]]:
        found = [("rows", ", ".join(shape for shape in SHAPES if shape in self.shapes))]
        found += [("runs", "with the policy's initial weights" if self.loads else "before any weights load")]
        return found + ([("order", "sets the order of the rows")] if self.orders else [])


READABLE = frozenset({"safety", "scores", "groups"})
"""What a selector can need: columns of the training rows."""


def conflicts(choice: Choice, launch: str) -> Iterator[AlignzooError]:
    """Needs that the training rows' columns cannot meet."""
    for selector in choice["selector"]:
        beyond = sorted(selector.needs - READABLE)
        if beyond:
            yield IncompatibleError(
                f"selector {selector.card.name!r} needs {beyond[0]}, but a selector reads columns of the training rows "
                f"only: {', '.join(sorted(READABLE))}",
                hint="take it out of the card's needs; a selector that needs the policy says `loads=True`",
            )


@dataclass(frozen=True)
class Selection:
    """What a selector makes of the N rows that it was given; indices are theirs, from 0.

    Attributes:
        rows: the rows to keep, each once, in order; None keeps all.
        flipped: rows that get the opposite label, among those kept: in pairs and lists the order of the responses is
            reversed, with their scores and safety flags.
        prefixes: for rows of several responses, how many tokens of the row's last response, after flips, move to the
            end of its prompt; the response keeps the rest. Fewer than the response has.
        keep_order: whether training visits the rows in the order of ``rows``, in every epoch; otherwise it shuffles.
        reasons: why rows are dropped, in a few words that many rows share; for the run folder.
        notes: what the run folder's record of a changed row says besides, for example ``margin 0.31``.
        left_out: names of groups that the kept rows are to do without; held-out rows of these groups are evaluated
            apart.
        facts: numbers to report, for example a threshold.
    """

    rows: Sequence[int] | None = None
    flipped: Collection[int] = ()
    prefixes: Mapping[int, int] = field(default_factory=dict)
    keep_order: bool = False
    reasons: Mapping[int, str] = field(default_factory=dict)
    notes: Mapping[int, str] = field(default_factory=dict)
    left_out: Collection[str] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SelectionModel:
    """The policy with its initial weights.

    Attributes:
        policy: on its device, unwrapped. Leave it as it is: train a copy.
        device: of the policy.
        forward: from a model and row indices to the log-probs of the rows' responses, best first, with gradients unless
            they are off; with ``whole=True``, of all tokens but the first, prompt included.
        scan: the same for all rows, in batches and without gradients: the log-probs of all responses and the numbers of
            tokens they are sums of, ``(R,)`` fp32 on the CPU, in the rows' order.
    """

    policy: Any
    device: torch.device
    forward: Callable[..., ResponseBatch]
    scan: Callable[..., tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class SelectionContext:
    """The training rows as earlier selectors and ``--label-noise`` left them, and what else a selector can read.

    Attributes:
        shape: of the rows.
        row_ids: ``(N,)`` row numbers in the data.
        labels: ``(N,)``, +1 or −1; unpaired rows only.
        safe: for each row, one flag per response, best first; None unless the card needs ``safety``.
        scores: the data's own scores, likewise; None unless the card needs ``scores``.
        groups: a name per row; None unless the card needs ``groups``.
        simulated: ``(N,)`` whether ``--label-noise`` gave the row the opposite label. Only for rows whose labels the
            user has verified: on others it is the answer to what a method is tested on.
        seed: of the run, for whatever is drawn.
        report: where to say what takes long or is worth knowing.
    """

    shape: Shape
    row_ids: np.ndarray
    labels: np.ndarray | None
    safe: Sequence[Sequence[bool]] | None
    scores: Sequence[Sequence[float]] | None
    groups: Sequence[str] | None
    simulated: np.ndarray
    seed: int
    report: Reporter
    _column: Callable[[str], list[Any]] = field(repr=False)
    _model: Callable[[], SelectionModel] = field(repr=False)

    def __len__(self) -> int:
        return len(self.row_ids)

    def prompts(self) -> list[str]:
        """The prompts as tokenised, including the chat template's tokens."""
        return self._column("prompt_text")

    def responses(self) -> list[list[str]]:
        """The texts of each row's responses, best first."""
        return self._column("response_text")

    def prompt_ids(self) -> list[list[int]]:
        """Token ids of the prompts."""
        return self._column("prompt_ids")

    def response_ids(self) -> list[list[list[int]]]:
        """Token ids of each row's responses, best first."""
        return self._column("response_ids")

    @property
    def model(self) -> SelectionModel:
        """The policy and its log-probs; loads the weights.

        Raises:
            LookupError: the card does not say ``loads=True``.
        """
        return self._model()


class Selector(Method):
    """Decides once, before training, which of the training rows are used and how."""

    def select(self, ctx: SelectionContext) -> Selection:
        """What to make of the rows: a function of the context and the options, since a resumed run asks again.

        Called on every rank; the first rank's answer counts.
        """
        raise NotImplementedError
