"""Loads a run's data and divides it into training rows, held-out rows, and rows set aside for the safety probe.

They share no prompts. A row's part depends only on its prompt and the settings, never on the run's seed or methods, so
runs that differ in these train and are evaluated on the same rows. Label noise only affects training rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.memo import Memo
from alignzoo.contract.card import Need
from alignzoo.contract.loss import Reads
from alignzoo.contract.source import Split
from alignzoo.data.asked import check_columns, check_noise, check_shape
from alignzoo.data.columns import column
from alignzoo.data.digests import tokenizer_digest
from alignzoo.data.malformed import malformed_warning, refuse_malformed
from alignzoo.data.named import as_dataset, rows_content, rows_of
from alignzoo.data.noise import flip_labels, write_manifest
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
    from datasets import Dataset

VALIDATION_SHARE = 0.2
"""Share of the training prompts that ``--validation`` holds out, at most ``--eval-pairs`` rows."""
_MORE_FOR_THE_PROBE = (
    "use more data, raise --probe.share, or use a saved probe: --geometry.probe DIR (`alignzoo probe` trains one)"
)


@dataclass(frozen=True)
class Division:
    """The divided rows, before any selector.

    Attributes:
        train: after label noise.
        held_out: empty if nothing is held out.
        flipped: ids of the training rows flipped by label noise.
        prepared, other: the sources of ``train`` and ``held_out``.
        summaries, highest_id, probe_train, probe_validation: see :class:`~alignzoo.data.parts.Parts`.
    """

    train: Dataset
    held_out: Dataset
    probe_train: Dataset | None
    probe_validation: Dataset | None
    flipped: frozenset[int]
    prepared: Prepared
    other: Prepared
    summaries: dict[str, DataSummary]
    highest_id: int

    @property
    def shape(self) -> Shape:
        return self.prepared.shape


def divide(
    settings: Settings,
    tokenizer: Any,
    *,
    needs: Collection[Need],
    reads: Mapping[str, Reads],
    report: Reporter,
    folder: Path | None = None,
    memo: Memo | None = None,
) -> Division:
    """Load, tokenise and divide the data of a run; arguments and errors are those of
    :func:`~alignzoo.data.parts.load_parts`, except for ``memo``: rows that earlier runs of this process have read."""
    memo = memo or Memo()
    prepared = prepare_rows(settings, tokenizer, memo)
    describe(prepared, report)
    _check_shape(prepared, reads, needs, settings)
    summaries, highest_id, other = {"train": prepared.summary}, prepared.highest_id, prepared
    own = data_of(settings.data, registry())
    if settings.eval_data is not None or (own is not None and own.held_out):
        other = _prepare_held_out(settings, tokenizer, prepared.shape, report, memo)
        summaries["eval"], highest_id = other.summary, max(highest_id, other.highest_id)
        train, held_out = _divide_by_source(prepared, other, settings, report)
    else:
        train, held_out = hold_out(prepared.dataset, settings.eval_share, settings.eval_pairs, "eval")
    if settings.validation:
        train, held_out = hold_out(train, VALIDATION_SHARE, settings.eval_pairs, "validation")
        other = prepared
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
    report.note(_division(prepared.shape, train, held_out, probe_train, probe_validation))
    return Division(
        train,
        held_out,
        probe_train,
        probe_validation,
        frozenset(flipped),
        prepared,
        other,
        summaries,
        highest_id,
    )


def _check_shape(prepared: Prepared, reads: Mapping[str, Reads], needs: Collection[Need], settings: Settings) -> None:
    check_shape(prepared, reads, needs, settings.data)
    check_noise(settings.label_noise, prepared.shape, settings.data)
    if "probe" in needs:
        check_safety_known(prepared.dataset, prepared.shape, settings.data)


def _prepare_held_out(settings: Settings, tokenizer: Any, shape: Shape, report: Reporter, memo: Memo) -> Prepared:
    """The rows of ``--eval-data``, or the data's own held-out rows."""
    source = settings.eval_data or settings.data
    data_format = settings.eval_data_format or settings.data_format
    other = _prepare(settings, source, settings.eval_data_split, data_format, "validation", tokenizer, memo)
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


def prepare_rows(settings: Settings, tokenizer: Any, memo: Memo | None = None) -> Prepared:
    """The rows of ``--data``, before splitting."""
    memo = memo or Memo()
    return _prepare(settings, settings.data, settings.data_split, settings.data_format, "train", tokenizer, memo)


def _prepare(
    settings: Settings, source: str, split: str | None, data_format: str | None, part: Split, tokenizer: Any, memo: Memo
) -> Prepared:
    named = data_of(source, registry())
    lengths = {"max_length": settings.max_length, "max_prompt_length": settings.max_prompt_length}

    def prepared_rows(rows: str | Dataset) -> Prepared:
        layout = data_format if named is None else named.layout
        return prepare(rows, tokenizer, split=split, data_format=layout, workers=settings.data_workers, **lengths)

    if named is None:
        prepared = prepared_rows(source)
    else:
        rows = rows_of(named, part)
        content = (rows_content(rows), named.layout, tokenizer_digest(tokenizer), *lengths.values())
        prepared = memo.get("rows", content, lambda: prepared_rows(as_dataset(named, part, rows)))
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
