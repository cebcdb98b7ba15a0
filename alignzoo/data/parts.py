"""The parts of a run's data: training rows, held-out rows, and rows set aside for the safety probe.

They share no prompts. A row's part depends only on its prompt and the settings, never on the run's seed or methods, so
runs that differ in these train and are evaluated on the same rows. Label noise only affects training rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.contract.card import Need
from alignzoo.contract.loss import Reads
from alignzoo.contract.source import Split
from alignzoo.data.asked import check_columns, check_labels, check_noise, check_shape
from alignzoo.data.columns import column
from alignzoo.data.identity import rows_identity
from alignzoo.data.lengths import lengths_of
from alignzoo.data.malformed import malformed_warning, refuse_malformed
from alignzoo.data.mismatch import partners
from alignzoo.data.named import named_rows
from alignzoo.data.noise import flip_labels, write_manifest
from alignzoo.data.original import OriginalRows
from alignzoo.data.prepare import Prepared, prepare
from alignzoo.data.probe_rows import check_probe_pairs, check_safety_known, set_aside
from alignzoo.data.shapes import NOUNS, Shape
from alignzoo.data.splits import drop_prompts, hold_out
from alignzoo.data.summary import DataSummary
from alignzoo.errors import DataError
from alignzoo.plan.extensions import data_of
from alignzoo.plan.settings import Settings
from alignzoo.plugin.registry import registry
from alignzoo.report import Reporter

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

_MORE_FOR_THE_PROBE = (
    "use more data, raise --probe.share, or use a saved probe: --geometry.probe DIR (`alignzoo probe` trains one)"
)


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
        flipped: ids of the training rows flipped by label noise.
        scores: the reward's scores of the responses of ``train`` and ``held_out``; empty without a reward.
        partners: the rows that provide mismatched responses for the rows of ``train`` and ``held_out``, see
            :func:`~alignzoo.data.mismatch.partners`; empty if no method needs them.
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
    """Load, tokenise and split the data of a run; with ``folder``, the noise manifest is written there.

    Args:
        needs: the needs of the run's methods.
        reads: the run's losses by name, with what each reads.

    Raises:
        DataError: unreadable or malformed data, a shape that a loss cannot read, missing columns that a method
            needs, or no rows left to train on.
    """
    prepared = prepare_rows(settings, tokenizer)
    describe(prepared, report)
    _check_shape(prepared, reads, needs, settings)
    summaries, highest_id, other = {"train": prepared.summary}, prepared.highest_id, prepared
    own = data_of(settings.data, registry())
    if settings.eval_data is not None or (own is not None and own.held_out):
        other = _prepare_held_out(settings, tokenizer, prepared.shape, report)
        summaries["eval"], highest_id = other.summary, max(highest_id, other.highest_id)
        train, held_out = _divide_by_source(prepared, other, settings, report)
    else:
        train, held_out = hold_out(prepared.dataset, settings.eval_share, settings.eval_pairs, "eval")
    train, probe_train, probe_validation = set_aside(train, settings.probe_share, prepared.shape)
    if len(train) == 0:
        raise DataError(
            f"{settings.data}: no {NOUNS[prepared.shape]} are left to train on after holding out {len(held_out)}",
            hint="use more data, or lower --eval-share and --probe.share",
        )
    check_columns(needs, train, prepared.shape, settings.data)
    held_out = _evaluable(held_out, needs, report)
    if len(held_out):
        check_columns(needs, held_out, prepared.shape, settings.eval_data or settings.data)
    if "probe" in needs and probe_train is not None and probe_validation is not None:
        check_probe_pairs(probe_train, probe_validation, hint=_MORE_FOR_THE_PROBE)
    train, flipped = _with_noise(train, settings, report, folder)
    check_labels(train, reads, settings.data, report)
    report.note(_division(prepared.shape, train, held_out, probe_train, probe_validation))
    trained = (train, prepared, flipped)
    return Parts(
        train,
        held_out if len(held_out) else None,
        probe_train,
        probe_validation,
        summaries,
        fingerprint=rows_identity([trained, (held_out, other, [])]),
        highest_id=highest_id,
        original={"train": prepared.original, "held_out": other.original},
        shape=prepared.shape,
        flipped=frozenset(flipped),
        partners=_partners(train, held_out, settings.max_length) if "mismatched" in needs else {},
        train_identity=rows_identity([trained])[:16],
    )


def _check_shape(prepared: Prepared, reads: Mapping[str, Reads], needs: Collection[Need], settings: Settings) -> None:
    check_shape(prepared, reads, needs, settings.data)
    check_noise(settings.label_noise, prepared.shape, settings.data)
    if "probe" in needs:
        check_safety_known(prepared.dataset, prepared.shape, settings.data)


def _prepare_held_out(settings: Settings, tokenizer: Any, shape: Shape, report: Reporter) -> Prepared:
    """The rows of ``--eval-data``, or the data's own held-out rows."""
    source = settings.eval_data or settings.data
    data_format = settings.eval_data_format or settings.data_format
    other = _prepare(settings, source, settings.eval_data_split, data_format, "validation", tokenizer)
    warn_of_malformed(other, report)
    if other.shape != shape:
        raise DataError(
            f"--eval-data {source} has {NOUNS[other.shape]}, but --data {settings.data} has {NOUNS[shape]}",
            hint="use held-out data of the same shape, or leave out --eval-data to hold out a share of --data",
        )
    return other


def _divide_by_source(rows: Prepared, other: Prepared, settings: Settings, report: Reporter) -> tuple[Dataset, Dataset]:
    """Training rows, without those that share a prompt with the held-out data; and the held-out rows."""
    noun = NOUNS[rows.shape]
    surplus, held_out = hold_out(other.dataset, 1.0, settings.eval_pairs, "eval")
    if len(surplus):
        report.note(f"held-out {noun}: using {len(held_out):,} of {len(other.dataset):,}; raise --eval-pairs for more")
    train, shared = drop_prompts(rows.dataset, column(other.dataset, "prompt_key").unique().to_pylist())
    if shared:
        report.warn(f"left out {shared:,} training {noun} whose prompts are also in the held-out {noun}")
    return train, held_out


def _evaluable(held_out: Dataset, needs: Collection[Need], report: Reporter) -> Dataset:
    """The held-out rows that the run's methods can be evaluated on: none where these need responses to other prompts
    and there is only one prompt. What is trained on stays the same for every method."""
    if "mismatched" not in needs or len(held_out) == 0 or len(column(held_out, "prompt_key").unique()) > 1:
        return held_out
    report.warn(
        f"not evaluating: the held-out rows ({len(held_out)}) have a single prompt, and a method of this run compares "
        "responses with those to other prompts; raise --eval-share, or give --eval-data"
    )
    return held_out.select([])


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


def prepare_rows(settings: Settings, tokenizer: Any) -> Prepared:
    """The rows of ``--data``, before splitting."""
    return _prepare(settings, settings.data, settings.data_split, settings.data_format, "train", tokenizer)


def _prepare(
    settings: Settings, source: str, split: str | None, data_format: str | None, part: Split, tokenizer: Any
) -> Prepared:
    named = data_of(source, registry())
    prepared = prepare(
        source if named is None else named_rows(named, part),
        tokenizer,
        split=split,
        data_format=data_format if named is None else named.layout,
        max_length=settings.max_length,
        max_prompt_length=settings.max_prompt_length,
        workers=settings.data_workers,
    )
    if named is not None:
        prepared = replace(prepared, summary=replace(prepared.summary, source=named.name, split=part))
    if settings.data_strict:
        refuse_malformed(prepared)
    return prepared


def describe(prepared: Prepared, report: Reporter) -> None:
    """Print the data report."""
    summary = prepared.summary
    report.table(f"data: {summary.source}", ("what", "count", "detail"), summary.table())
    restored, refused = summary.counted["prompt-restored"], summary.dropped.get("prompt-rewritten-by-chat-template")
    if restored or refused:
        left_out = refused.count if refused else 0
        report.warn(
            f"the chat template rewrites the prompt when a reply is added, in {restored + left_out} of {summary.rows} "
            f"rows: {restored} keep the prompt used for generation, {left_out} are left out"
        )
    warn_of_malformed(prepared, report)


def warn_of_malformed(prepared: Prepared, report: Reporter) -> None:
    """Report malformed rows that were dropped, with their places."""
    warning = malformed_warning(prepared)
    if warning is not None:
        report.warn(warning)


def _with_noise(train: Dataset, settings: Settings, report: Reporter, folder: Path | None) -> tuple[Dataset, list[int]]:
    """The training rows after label noise, and the ids of the flipped ones."""
    noisy, flipped = flip_labels(train, settings.label_noise, settings.seed)
    if settings.label_noise > 0:
        report.note(f"label noise: {len(flipped)} of {len(train)} training rows flipped")
        if folder is not None:
            write_manifest(
                folder / "label_noise.jsonl", flipped, rate=settings.label_noise, seed=settings.seed, n=len(train)
            )
    return noisy, flipped


def _division(
    shape: Shape, train: Dataset, held_out: Dataset, probe: Dataset | None, validation: Dataset | None
) -> str:
    text = f"{NOUNS[shape]}: {len(train):,} for training, {len(held_out):,} held out"
    if not probe or not validation:
        return f"{text}, none set aside for the safety probe"
    aside = f"{len(probe):,} + {len(validation):,} set aside for the safety probe"
    return f"{text}, {aside}, the same for every method"
