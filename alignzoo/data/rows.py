"""The rows that layouts return, and the canonical form they are converted to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.contract.texts import Message as Message
from alignzoo.contract.texts import Text, as_messages
from alignzoo.data.shapes import Shape, response_name


class FieldError(ValueError):
    """A field of a row is missing or has the wrong type; the caller knows the row's origin."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem


@dataclass(frozen=True)
class Drop:
    """A well-formed row that cannot be trained on, and why (a readable kebab-case word)."""

    reason: str


@dataclass(frozen=True)
class PreferenceRow:
    """One pair. Each text is a string or a list of chat messages; all three have the same type.

    ``transcript``: the messages were parsed from a ``Human:``/``Assistant:`` transcript and may be written back as one.
    Scores: higher is better.
    """

    prompt: Text
    chosen: Text
    rejected: Text
    transcript: bool = False
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    group: str | None = None


@dataclass(frozen=True)
class UnpairedRow:
    """One response and its label: True is desirable. Both texts have the same type, as in :class:`PreferenceRow`."""

    prompt: Text
    completion: Text
    label: bool
    transcript: bool = False
    safe: bool | None = None
    score: float | None = None
    group: str | None = None


@dataclass(frozen=True)
class RankedRow:
    """Two or more responses to one prompt, best first; ``safe`` and ``scores`` have one value each, in that order.

    All texts have the same type, as in :class:`PreferenceRow`.
    """

    prompt: Text
    responses: Sequence[Text]
    transcript: bool = False
    safe: Sequence[bool] | None = None
    scores: Sequence[float] | None = None
    group: str | None = None


@dataclass(frozen=True)
class DemonstrationRow:
    """One response to imitate, without a label. Both texts have the same type, as in :class:`PreferenceRow`."""

    prompt: Text
    completion: Text
    transcript: bool = False
    safe: bool | None = None
    score: float | None = None
    group: str | None = None


SourceRow = PreferenceRow | UnpairedRow | RankedRow | DemonstrationRow
ROW_TYPES: dict[Shape, type[SourceRow]] = {
    "pairs": PreferenceRow,
    "unpaired": UnpairedRow,
    "ranked": RankedRow,
    "demonstrations": DemonstrationRow,
}
"""The row class of each shape."""


@dataclass(frozen=True)
class PromptRow:
    """A prompt with k responses, best first if they are ordered: the canonical form of rows of every shape.

    Attributes:
        label: +1 desirable, −1 undesirable; only for unpaired rows.
        safe, score: one value per response; None if the data has none.
    """

    shape: Shape
    prompt: Text
    responses: tuple[Text, ...]
    transcript: bool = False
    label: int | None = None
    safe: tuple[bool | None, ...] | None = None
    score: tuple[float | None, ...] | None = None
    group: str | None = None

    def name(self, rank: int) -> str:
        """The name of the response of that rank in drop reasons."""
        return response_name(self.shape, rank)

    def unusable(self) -> Drop | None:
        """Why the row's texts cannot be trained on, or None."""
        if is_blank(self.prompt):
            return Drop("empty-prompt")
        for rank, response in enumerate(self.responses):
            if is_blank(response):
                return Drop(f"empty-{self.name(rank)}")
        if any(response in self.responses[:rank] for rank, response in enumerate(self.responses)):
            return Drop(identical(self.shape))
        return None


def canonical(row: SourceRow) -> PromptRow:
    """A layout's row in the canonical form."""
    shared: dict[str, Any] = {"prompt": row.prompt, "transcript": row.transcript, "group": row.group}
    if isinstance(row, UnpairedRow | DemonstrationRow):
        label = None if isinstance(row, DemonstrationRow) else 1 if row.label else -1
        return PromptRow(
            "demonstrations" if label is None else "unpaired",
            responses=(row.completion,),
            label=label,
            safe=None if row.safe is None else (row.safe,),
            score=None if row.score is None else (row.score,),
            **shared,
        )
    if isinstance(row, RankedRow):
        return PromptRow(
            "ranked",
            responses=tuple(row.responses),
            safe=None if row.safe is None else tuple(row.safe),
            score=None if row.scores is None else tuple(row.scores),
            **shared,
        )
    return PromptRow(
        "pairs",
        responses=(row.chosen, row.rejected),
        safe=(row.chosen_safe, row.rejected_safe),
        score=(row.chosen_score, row.rejected_score),
        **shared,
    )


def identical(shape: Shape) -> str:
    """The drop reason of a row with identical responses."""
    return "identical-sides" if shape == "pairs" else "identical-responses"


def prompt_key(prompt: Text) -> str:
    """A stable hash of the prompt: the same for a string and for a single user message with that content."""
    turns = [[message["role"], message["content"].strip()] for message in as_messages(prompt, "user")]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()[:32]


def is_blank(text: Text) -> bool:
    """Whether a text has no content."""
    return not any(message["content"].strip() for message in as_messages(text, ""))
