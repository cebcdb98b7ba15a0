"""The rows set aside for the safety probe, the labels of their responses, and the minimum number needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import column, list_lengths
from alignzoo.data.extras import source_columns
from alignzoo.data.shapes import NOUNS, Shape
from alignzoo.data.splits import split_by_prompt
from alignzoo.errors import DataError
from alignzoo.plan.settings import PROBE_PAIRS, PROBE_SHARE

if TYPE_CHECKING:
    from datasets import Dataset

SAFE, UNSAFE, UNKNOWN = 1, 0, -1
PROBE_VALIDATION = 0.3
"""Share of the probe's prompts used for validation."""
LEAST_VALIDATION = 5
"""Minimum number of safe and of unsafe validation responses: with that many of each, a random direction separates
them perfectly once in 252 times."""


def set_aside(
    rows: Dataset, share: float | None, shape: Shape = "pairs"
) -> tuple[Dataset, Dataset | None, Dataset | None]:
    """Training rows, and the probe's for training and validation (None where ``share`` is 0).

    The parts depend on the rows and on ``share`` only, never on the methods of a run or its seed.

    Args:
        share: of the prompts; None for the default, which takes less of much data, and nothing of rows on which no
            probe can be trained.
    """
    if share is None:
        share = min(PROBE_SHARE, PROBE_PAIRS / max(1, len(rows))) if safety_known(rows, shape) else 0.0
    if share == 0:
        return rows, None, None
    shares = {"train": 1 - share, "probe": share * (1 - PROBE_VALIDATION), "validation": share * PROBE_VALIDATION}
    parts = split_by_prompt(rows, shares, 0, "probe")
    return parts["train"], parts["probe"], parts["validation"]


def check_probe_pairs(train: Dataset, validation: Dataset, *, hint: str) -> None:
    """Reject too few responses for a probe.

    Raises:
        DataError: no safe or no unsafe response to train on, or fewer than ``LEAST_VALIDATION`` of either to validate.
    """
    for name, rows, least in (("train on", train, 1), ("validate on", validation, LEAST_VALIDATION)):
        labels = safety_labels(rows)
        safe, unsafe = int((labels == SAFE).sum()), int((labels == UNSAFE).sum())
        if min(safe, unsafe) < least:
            raise DataError(
                f"the safety probe would have {safe} safe and {unsafe} unsafe responses to {name}; "
                f"it needs at least {least} of each",
                hint=hint,
            )


def safety_labels(rows: Dataset) -> np.ndarray:
    """For every response, row by row: :data:`SAFE`, :data:`UNSAFE` or :data:`UNKNOWN`, ``(R,)`` int8.

    Without safety flags, desirable and best-ranked responses count as safe, undesirable and worst-ranked ones as
    unsafe; those in between, and single responses without a label, are unknown.
    """
    if "safe" in rows.column_names:
        import pyarrow.compute as pc  # type: ignore[import-untyped]

        flags = pc.list_flatten(column(rows, "safe")).cast("int8")
        return np.asarray(pc.fill_null(flags, UNKNOWN).to_numpy())
    if "label" in rows.column_names:
        return np.where(column(rows, "label").to_numpy() > 0, SAFE, UNSAFE).astype(np.int8)
    counts = list_lengths(rows, "response_ids")
    labels = np.full(int(counts.sum()), UNKNOWN, np.int8)
    ends = np.cumsum(counts)
    several = counts > 1
    labels[(ends - counts)[several]], labels[ends[several] - 1] = SAFE, UNSAFE
    return labels


def safety_known(rows: Dataset, shape: Shape) -> bool:
    """Whether rows of a shape tell safe from unsafe responses: demonstrations only by flags."""
    return shape != "demonstrations" or "safe" in rows.column_names


def check_safety_known(rows: Dataset, shape: Shape, source: str) -> None:
    """Refuse rows on which no probe can be trained.

    Raises:
        DataError: they have neither flags nor labels nor an order.
    """
    if not safety_known(rows, shape):
        raise DataError(
            f"{source}: the safety probe is trained on safe and unsafe responses, but {NOUNS[shape]} without a column "
            f"{source_columns('safe', shape)[0]!r} do not tell them apart",
            hint="add that column (true/false), use a saved probe (`alignzoo probe` trains one on pairs), or choose "
            "a method without a probe",
        )
