"""What the methods of a run ask of its data, checked before any weights load."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from alignzoo.contract.card import Card, Need
from alignzoo.contract.loss import Reads
from alignzoo.data.columns import column
from alignzoo.data.extras import source_columns
from alignzoo.data.prepare import Prepared
from alignzoo.data.shapes import NOUNS, SHAPES, Shape, readable
from alignzoo.errors import DataError
from alignzoo.plugin.registry import registry
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS: dict[Need, str] = {"scores": "score", "groups": "group"}
"""The column of the prepared data that a need of a method asks for."""


def check_shape(prepared: Prepared, reads: Mapping[str, Reads], needs: Collection[Need], source: str) -> None:
    """Refuse rows of a shape that a loss cannot read.

    Args:
        reads: losses by name, and what each gives a value for.

    Raises:
        DataError: names the loss, the shape, and the shapes that it can read.
    """
    for loss, read in reads.items():
        why = readable(read, needs, prepared.shape)
        if why is None:
            continue
        able = " or ".join(NOUNS[shape] for shape in SHAPES if readable(read, needs, shape) is None)
        noun, layout = NOUNS[prepared.shape], prepared.summary.format
        raise DataError(
            f"{source}: --loss {loss} cannot train on {noun} (layout {layout}): {why}",
            hint=f"choose a loss for {noun}, or give {able}; docs/data.md has the layouts of each",
        )


def check_columns(needs: Collection[Need], rows: Dataset, shape: Shape, source: str) -> None:
    """Refuse rows that lack a column which a method needs.

    Raises:
        DataError: names the columns.
    """
    for need, name in COLUMNS.items():
        if need in needs and name not in rows.column_names:
            raise DataError(
                f"{source}: a method of this run needs {need}, and the data has no "
                + " or no ".join(source_columns(name, shape)),
                hint="add the columns, or choose another method"
                + (f" or another source of scores ({_other_rewards()})" if need == "scores" else "")
                + "; docs/data.md names the layouts that have them",
            )


def _other_rewards() -> str:
    """The rewards that do not take their scores from the data."""
    cards = [card for _, card in registry().entries("reward") if isinstance(card, Card)]
    return ", ".join(f"--reward {card.name}" for card in cards if "scores" not in card.needs)


def check_labels(rows: Dataset, reads: Mapping[str, Reads], source: str, report: Reporter) -> None:
    """Look whether unpaired training rows have both labels where a loss learns from both.

    Raises:
        DataError: a loss imitates desirable responses, and there are none.
    """
    if "label" not in rows.column_names:
        return
    desirable = int((column(rows, "label").to_numpy() > 0).sum())
    if desirable == 0 and (imitating := [loss for loss, read in reads.items() if read == "chosen"]):
        raise DataError(
            f"{source}: --loss {imitating[0]} trains on desirable responses, and none of the {len(rows)} training rows "
            "is labelled so",
            hint="look at the labels, or choose a loss that learns from undesirable responses as well",
        )
    if desirable in (0, len(rows)) and "responses" in reads.values():
        label, other = ("undesirable", "desirable") if desirable == 0 else ("desirable", "undesirable")
        report.warn(
            f"all {len(rows)} training rows are labelled {label}, so that the loss has nothing {other} to set against "
            f"them; give {other} responses as well"
        )
