"""``examples.jsonl``: single rows and answers of a run, for people to read.

One object per line: ``{"row": …}`` for a training row as training last saw it, ``{"answer": …}`` for a prompt of the
evaluation with the answers before and after training.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.files import write_text
from alignzoo.contract.texts import as_messages

if TYPE_CHECKING:
    from alignzoo.contract.geometry import StepLoss
    from alignzoo.data.parts import Parts
    from alignzoo.objective.objective import Objective

EXAMPLES_FILE = "examples.jsonl"
ROWS = 1024
"""How many of the last rows to remember."""
WITH_TEXT = 20
"""Rows with the largest losses, and flipped rows with the largest and smallest weights, that keep their texts."""
ANSWERS = 24
CHARACTERS = 1500
"""Longer texts are cut."""

Said = Mapping[tuple[str, str], str]
"""Answers by the name of a set of prompts and the prompt."""


@dataclass
class Examples:
    """What a run remembers of its last rows and of its answers.

    Args:
        objective: of the run.
        first: the 0-based step from which rows are remembered.
        before: answers before training.
    """

    objective: Objective
    first: int
    before: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of_last(cls, objective: Objective, steps: int, batch_size: int) -> Examples:
        """Of the last :data:`ROWS` rows of a run of so many steps."""
        return cls(objective, max(0, steps - max(1, ROWS // batch_size)))

    def see(self, loss: StepLoss, step: int) -> None:
        """Remember a step's rows: their losses at the weights before the step, and the weights that wrappers gave."""
        if step < self.first:
            return
        import torch

        with torch.no_grad():
            losses = self.objective.by_prompt(loss.responses).tolist()
        weights: list[float | None] = [None] * len(losses)
        if self.objective.wrappers:
            given = self.objective.weights(loss.responses)
            if len(given) == len(losses):
                weights = (given * len(given)).tolist()
        for row, value, weight in zip(loss.row_ids.tolist(), losses, weights, strict=True):
            self.rows[row] = {"row_id": row, "step": step + 1, "loss": value, "weight": weight}

    def write(self, folder: Path, parts: Parts, after: Said) -> None:
        """Write the file.

        Args:
            after: answers after training.
        """
        rows = sorted(self.rows.values(), key=lambda row: -row["loss"])
        for row in rows:
            row["flipped"] = row["row_id"] in parts.flipped
        texts = {row["row_id"]: row for row in _worth_reading(rows)}
        if texts:
            for row_id, original in zip(texts, parts.original["train"].of(list(texts)), strict=True):
                responses = [_last(response) for response in original.responses]
                backwards = texts[row_id]["flipped"] and original.label is None
                texts[row_id] |= {
                    "prompt": _last(original.prompt),
                    "responses": responses[::-1] if backwards else responses,
                }
        lines = [{"row": row} for row in rows] + [{"answer": one} for one in changed_most(self.before, after)]
        write_text(folder / EXAMPLES_FILE, "".join(f"{json.dumps(line)}\n" for line in lines))


def _worth_reading(rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    flipped = [row for row in rows if row["flipped"] and row["weight"] is not None]
    flipped.sort(key=lambda row: row["weight"])
    half = WITH_TEXT // 2
    return [*rows[:WITH_TEXT], *flipped[:half], *flipped[-half:]]


def changed_most(before: Said, after: Said) -> list[dict[str, Any]]:
    """The prompts of each set whose answers differ most, as ``set``, ``prompt``, ``before``, ``after`` and
    ``similarity`` (1 for the same text, by words)."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for (name, prompt), answer in after.items():
        earlier = before.get((name, prompt), answer)
        if earlier != answer:
            texts = {"prompt": _cut(prompt), "before": _cut(earlier), "after": _cut(answer)}
            alike = round(similarity(earlier, answer), 4)
            sets.setdefault(name, []).append({"set": name, **texts, "similarity": alike})
    each = max(1, ANSWERS // max(1, len(sets)))
    return [one for some in sets.values() for one in sorted(some, key=lambda one: one["similarity"])[:each]]


def similarity(one: str, other: str) -> float:
    """The share of words that two texts have in common, in order."""
    return difflib.SequenceMatcher(None, one.split(), other.split(), autojunk=False).ratio()


def _last(text: Any) -> str:
    return _cut(str(as_messages(text, "user")[-1].get("content") or ""))


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS - 1]}…"
