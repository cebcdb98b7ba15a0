"""Checks the data against the methods' needs before any weights load."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from alignzoo.contract.card import Card, Need
from alignzoo.contract.loss import LossCard, Reads
from alignzoo.data.columns import column
from alignzoo.data.extras import source_columns
from alignzoo.data.prepare import Prepared
from alignzoo.data.shapes import NOUNS, SHAPES, Shape, readable
from alignzoo.errors import DataError, IncompatibleError
from alignzoo.plugin.build import default_needs
from alignzoo.plugin.registry import registry
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS: dict[Need, str] = {"scores": "score", "groups": "group", "safety": "safe"}
"""The column of the prepared data for each need of a method."""
_NOUNS: dict[Need, str] = {"safety": "safety labels"}
"""What a need is called in messages, where it is not its name."""


MOST_NAMED = 8
"""Losses to name in a hint."""


def check_shape(prepared: Prepared, reads: Mapping[str, Reads], needs: Collection[Need], source: str) -> None:
    """Reject rows of a shape that a loss cannot read.

    Args:
        reads: losses by name, with what each reads.

    Raises:
        IncompatibleError: names the loss, the shape, the losses that can read it, and the shapes that this one can.
    """
    for loss, read in reads.items():
        why = readable(read, needs, prepared.shape)
        if why is None:
            continue
        able = " or ".join(NOUNS[shape] for shape in SHAPES if readable(read, needs, shape) is None)
        noun, layout = NOUNS[prepared.shape], prepared.summary.format
        raise IncompatibleError(
            f"{source}: --loss {loss} cannot train on {noun} (layout {layout}): {why}",
            hint=f"choose a loss for {noun} ({_readers(prepared.shape)}), or use {able}; docs/data.md lists the "
            "layouts of each",
        )


def check_noise(rate: float, shape: Shape, source: str) -> None:
    """Reject label noise on rows without a label or an order.

    Raises:
        DataError: names the shape.
    """
    if rate > 0 and shape == "demonstrations":
        raise DataError(
            f"{source}: --label-noise {rate} gives rows the opposite label, but demonstrations have no labels",
            hint="leave out --label-noise, or use pairs, ranked rows or unpaired rows",
        )


def _readers(shape: Shape) -> str:
    """The installed losses that can read rows of a shape, or where they are listed if they are many."""
    cards = [card for _, card in registry().entries("loss") if isinstance(card, LossCard)]
    able = [card.name for card in cards if readable(card.reads, default_needs(card), shape) is None]
    return ", ".join(able) if len(able) <= MOST_NAMED else f"{len(able)} of those that `alignzoo ls loss` lists"


def check_columns(needs: Collection[Need], rows: Dataset, shape: Shape, source: str) -> None:
    """Reject rows without a column that a method needs, or with safety labels for some responses only.

    Raises:
        DataError: names the columns.
    """
    for need, name in COLUMNS.items():
        if need in needs and name not in rows.column_names:
            raise DataError(
                f"{source}: a method of this run needs {_NOUNS.get(need, need)}, but the data has no "
                + " or no ".join(source_columns(name, shape)),
                hint="add the columns, or choose another method"
                + (f" or another source of scores ({_other_rewards()})" if need == "scores" else "")
                + "; docs/data.md lists the layouts that have them",
            )
    if "safety" in needs:
        _check_flags(rows, shape, source)


def _check_flags(rows: Dataset, shape: Shape, source: str) -> None:
    unknown = [i for i, flags in enumerate(column(rows, "safe").to_pylist()) if flags is None or None in flags]
    if unknown:
        first = int(column(rows, "row_id")[unknown[0]].as_py())
        raise DataError(
            f"{source}: a method of this run needs safety labels, but {len(unknown)} of {len(rows)} {NOUNS[shape]} "
            f"have a response without one; the first is row {first}",
            hint=f"fill in {' and '.join(source_columns('safe', shape))}, or leave those rows out",
        )


def _other_rewards() -> str:
    """The rewards that do not read scores from the data."""
    cards = [card for _, card in registry().entries("reward") if isinstance(card, Card)]
    return ", ".join(f"--reward {card.name}" for card in cards if "scores" not in card.needs)


def check_labels(rows: Dataset, reads: Mapping[str, Reads], source: str, report: Reporter) -> None:
    """Check that unpaired training rows have both labels if a loss learns from both.

    Raises:
        DataError: a loss imitates desirable responses, but there are none.
    """
    if "label" not in rows.column_names:
        return
    desirable = int((column(rows, "label").to_numpy() > 0).sum())
    if desirable == 0 and (imitating := [loss for loss, read in reads.items() if read == "chosen"]):
        raise DataError(
            f"{source}: --loss {imitating[0]} trains on desirable responses, but none of the {len(rows)} training rows "
            "is labelled desirable",
            hint="check the labels, or choose a loss that also learns from undesirable responses",
        )
    if desirable in (0, len(rows)) and "responses" in reads.values():
        label, other = ("undesirable", "desirable") if desirable == 0 else ("desirable", "undesirable")
        report.warn(
            f"all {len(rows)} training rows are labelled {label}, so the loss has no {other} responses to "
            f"contrast them with; add {other} responses"
        )
