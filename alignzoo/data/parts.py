"""The parts of a run's data: training rows as selectors leave them, held-out rows, and rows for the safety probe."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.contract.card import Need
from alignzoo.contract.loss import Reads
from alignzoo.data.asked import check_labels
from alignzoo.data.columns import column
from alignzoo.data.division import Division, divide
from alignzoo.data.identity import rows_identity
from alignzoo.data.lengths import lengths_of
from alignzoo.data.mismatch import partners
from alignzoo.data.original import OriginalRows
from alignzoo.data.selection import Selected
from alignzoo.data.shapes import NOUNS, Shape
from alignzoo.data.summary import DataSummary
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


@dataclass(frozen=True)
class Scores:
    """A reward's scores for every response of a part, higher is better.

    Attributes:
        values: fp32 or fp64, ``(R,)``, row by row in the order of the row's responses.
        offsets: ``(N + 1,)`` int64; the scores of row i are ``values[offsets[i]:offsets[i + 1]]``.
    """

    values: torch.Tensor
    offsets: np.ndarray

    def of(self, rows: Sequence[int]) -> list[list[float]]:
        """The scores of these rows, one list each."""
        return [self.values[self.offsets[row] : self.offsets[row + 1]].tolist() for row in rows]


@dataclass(frozen=True)
class Parts:
    """The rows a run trains, evaluates and probes on.

    Attributes:
        held_out: None if nothing is held out.
        probe_train, probe_validation: None with ``--probe.share 0``, and by default for demonstrations without safety
            flags.
        summaries: data summaries, by part.
        fingerprint: content hash of the training rows, as trained on, and of the held-out ones.
        train_identity: short content hash of the training rows alone, in order: equal for two runs that train on the
            same tokens with the same labels.
        highest_id: the largest token id of all rows.
        original: the sources' rows, of ``train`` and of ``held_out``.
        shape: the shape of all parts.
        flipped: ids of the training rows whose label is the opposite of the data's, through label noise or selectors.
        scores: the reward's scores of the responses of ``train`` and ``held_out``; empty without a reward.
        partners: the rows that provide mismatched responses for the rows of ``train`` and ``held_out``, see
            :func:`~alignzoo.data.mismatch.partners`; empty if no method needs them.
        keep_order: whether training visits the rows in their order, rather than shuffled.
        selection: what each selector did, in order.
        apart: ids of the held-out rows of groups that a selector left out of training; evaluated apart.
    """

    train: Dataset
    held_out: Dataset | None
    probe_train: Dataset | None
    probe_validation: Dataset | None
    summaries: dict[str, DataSummary]
    fingerprint: str
    highest_id: int
    original: dict[str, OriginalRows]
    shape: Shape = "pairs"
    flipped: frozenset[int] = frozenset()
    scores: dict[str, Scores] = field(default_factory=dict)
    partners: dict[str, np.ndarray] = field(default_factory=dict)
    train_identity: str = ""
    keep_order: bool = False
    selection: tuple[dict[str, Any], ...] = ()
    apart: frozenset[int] = frozenset()

    def longest(self) -> int:
        """Tokens of the longest training or held-out sequence, prompt and response."""
        parts = {"train": self.train, "held_out": self.held_out}
        return max(
            int(lengths_of(part, self.partners.get(name)).longest.max())
            for name, part in parts.items()
            if part is not None
        )


def load_parts(
    settings: Settings,
    tokenizer: Any,
    *,
    needs: Collection[Need],
    reads: Mapping[str, Reads] = MappingProxyType({}),
    report: Reporter,
    folder: Path | None = None,
) -> Parts:
    """Load, tokenise and split the data of a run without selectors; with ``folder``, the noise manifest is written
    there.

    Args:
        needs: the needs of the run's methods.
        reads: the run's losses by name, with what each reads.

    Raises:
        DataError: unreadable or malformed data, a shape that a loss cannot read, missing columns that a method
            needs, or no rows left to train on.
    """
    division = divide(settings, tokenizer, needs=needs, reads=reads, report=report, folder=folder)
    return parts_of(division, settings, needs=needs, reads=reads, report=report)


def parts_of(
    division: Division,
    settings: Settings,
    *,
    needs: Collection[Need],
    reads: Mapping[str, Reads] = MappingProxyType({}),
    report: Reporter,
    selected: Selected | None = None,
) -> Parts:
    """The parts of divided data.

    Args:
        selected: what selectors made of the training rows; None without any.

    Raises:
        DataError: the training rows lack labels that a loss needs.
    """
    selected = selected or Selected(division.train, division.flipped)
    train, held_out = selected.rows, division.held_out
    check_labels(train, reads, settings.data, report)
    trained = (train, division.prepared, selected.flipped, selected.prefixes)
    return Parts(
        train,
        held_out if len(held_out) else None,
        division.probe_train,
        division.probe_validation,
        division.summaries,
        fingerprint=rows_identity([trained, (held_out, division.other, (), {})]),
        highest_id=division.highest_id,
        original={"train": division.prepared.original, "held_out": division.other.original},
        shape=division.shape,
        flipped=selected.flipped,
        partners=_partners(train, held_out, settings.max_length) if "mismatched" in needs else {},
        train_identity=rows_identity([trained])[:16],
        keep_order=selected.keep_order,
        selection=selected.summaries,
        apart=_apart(held_out, selected.left_out, report),
    )


def _apart(held_out: Dataset, left_out: frozenset[str], report: Reporter) -> frozenset[int]:
    """Ids of the held-out rows of these groups; a warning if there are groups and no such rows."""
    if not left_out or not len(held_out):
        return frozenset()
    groups, ids = column(held_out, "group").to_pylist(), column(held_out, "row_id").to_pylist()
    apart = frozenset(row for row, group in zip(ids, groups, strict=True) if group in left_out)
    if not apart:
        report.warn("no held-out row has a group that was left out of training, so there is no eval/out/…")
    return apart


def _partners(train: Dataset, held_out: Dataset, max_length: int) -> dict[str, np.ndarray]:
    found = {"train": partners(train, max_length)}
    return found | ({"held_out": partners(held_out, max_length)} if len(held_out) else {})


def warn_of_little(parts: Parts, settings: Settings, report: Reporter) -> None:
    """Warn if there is too little data for the settings."""
    if len(parts.train) < settings.batch_size:
        noun = NOUNS[parts.shape]
        report.warn(
            f"a step of {settings.batch_size} {noun} exceeds the {len(parts.train)} training {noun}, so "
            f"{noun} repeat within a step; lower --batch-size, or use more data"
        )
    if parts.held_out is None and settings.eval_share > 0:
        report.warn("nothing is held out, so there is no evaluation; raise --eval-share, or set --eval-data")
