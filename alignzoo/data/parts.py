"""The parts of a run's data: training pairs, held-out pairs, and the pairs kept for the safety probe.

They share no prompt. Which part a pair is in depends on the prompts and on settings alone, never on the run's seed or
methods, so that runs which differ in these train on the same pairs and are compared on the same pairs. Label noise
touches the training pairs only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Need
from alignzoo.contract.source import Split
from alignzoo.data.columns import column
from alignzoo.data.identity import pairs_identity
from alignzoo.data.lengths import lengths_of
from alignzoo.data.malformed import malformed_warning, refuse_malformed
from alignzoo.data.named import named_rows
from alignzoo.data.noise import flip_labels, write_manifest
from alignzoo.data.original import OriginalRows
from alignzoo.data.prepare import Prepared, prepare
from alignzoo.data.splits import drop_prompts, hold_out
from alignzoo.data.summary import DataSummary
from alignzoo.errors import DataError
from alignzoo.plan.extensions import data_of
from alignzoo.plan.settings import Settings
from alignzoo.plugin.registry import registry
from alignzoo.probe.pairs import check_probe_pairs, set_aside
from alignzoo.report import Reporter

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

COLUMNS: dict[Need, tuple[str, ...]] = {"scores": ("chosen_score", "rejected_score"), "groups": ("group",)}
"""What a need of a method asks of the data."""
_MORE_FOR_THE_PROBE = (
    "give more data, raise --probe.share, or name a saved probe: --geometry.probe DIR (`alignzoo probe` makes one)"
)


@dataclass(frozen=True)
class Scores:
    """What a reward gives each pair of a part, by row: fp32 or fp64 ``(N,)``, higher is better."""

    chosen: torch.Tensor
    rejected: torch.Tensor


@dataclass(frozen=True)
class Parts:
    """What a run trains, evaluates and probes on.

    Attributes:
        held_out: None where nothing was held out.
        probe_train, probe_validation: None with ``--probe.share 0``.
        summaries: how the rows became pairs, by part.
        fingerprint: content hash of the training pairs, as trained on, and of the held-out ones.
        train_identity: short content hash of the training pairs alone, in order: equal for two runs that train on the
            same tokens with the same labels.
        highest_id: the largest token id of all pairs.
        original: the sources' rows, of ``train`` and of ``held_out``.
        flipped: ids of the training pairs that label noise has swapped.
        scores: what the run's reward gives the pairs of ``train`` and of ``held_out``; none where it has no reward.
    """

    train: Dataset
    held_out: Dataset | None
    probe_train: Dataset | None
    probe_validation: Dataset | None
    summaries: dict[str, DataSummary]
    fingerprint: str
    highest_id: int
    original: dict[str, OriginalRows]
    flipped: frozenset[int] = frozenset()
    scores: dict[str, Scores] = field(default_factory=dict)
    train_identity: str = ""

    def longest(self) -> int:
        """Tokens of the longest sequence, prompt and response, that is trained or evaluated on."""
        return max(int(lengths_of(part).longest.max()) for part in (self.train, self.held_out) if part is not None)


def load_parts(
    settings: Settings, tokenizer: Any, *, needs: Collection[Need], report: Reporter, folder: Path | None = None
) -> Parts:
    """Load, tokenise and divide the data of a run; with ``folder``, the noise manifest is written there.

    Args:
        needs: what the methods of the run read.

    Raises:
        DataError: unreadable or malformed data, columns that a method needs are missing, or no pair left to train on.
    """
    prepared = _prepare(settings, settings.data, settings.data_split, settings.data_format, "train", tokenizer)
    describe(prepared, report)
    summaries, highest_id, other = {"train": prepared.summary}, prepared.highest_id, prepared
    original = {"train": prepared.original, "held_out": prepared.original}
    own = data_of(settings.data, registry())
    if settings.eval_data is not None or (own is not None and own.held_out):
        other = _prepare(
            settings,
            settings.eval_data or settings.data,
            settings.eval_data_split,
            settings.eval_data_format or settings.data_format,
            "validation",
            tokenizer,
        )
        original["held_out"] = other.original
        _warn_of_malformed(other, report)
        summaries["eval"], highest_id = other.summary, max(highest_id, other.highest_id)
        surplus, held_out = hold_out(other.dataset, 1.0, settings.eval_pairs, "eval")
        if len(surplus):
            report.note(f"held-out pairs: {len(held_out)} of {len(other.dataset)}; --eval-pairs takes more")
        train, shared = drop_prompts(prepared.dataset, column(other.dataset, "prompt_key").unique().to_pylist())
        if shared:
            report.warn(f"{shared} training pairs have prompts of the held-out pairs and were left out")
    else:
        train, held_out = hold_out(prepared.dataset, settings.eval_share, settings.eval_pairs, "eval")
    train, probe_train, probe_validation = set_aside(train, settings.probe_share)
    if len(train) == 0:
        raise DataError(
            f"{settings.data}: no pair is left to train on after holding out {len(held_out)} pairs",
            hint="give more data, or a lower --eval-share and --probe.share",
        )
    _check_columns(needs, train, settings.data)
    if len(held_out):
        _check_columns(needs, held_out, settings.eval_data or settings.data)
    if "probe" in needs and probe_train is not None and probe_validation is not None:
        check_probe_pairs(probe_train, probe_validation, hint=_MORE_FOR_THE_PROBE)
    train, flipped = _with_noise(train, settings, report, folder)
    report.note(_division(train, held_out, probe_train, probe_validation))
    trained = (train, prepared, flipped)
    return Parts(
        train,
        held_out if len(held_out) else None,
        probe_train,
        probe_validation,
        summaries,
        fingerprint=pairs_identity([trained, (held_out, other, [])]),
        highest_id=highest_id,
        original=original,
        flipped=frozenset(flipped),
        train_identity=pairs_identity([trained])[:16],
    )


def _check_columns(needs: Collection[Need], pairs: Dataset, source: str) -> None:
    for need, columns in COLUMNS.items():
        missing = [name for name in columns if name not in pairs.column_names]
        if need in needs and missing:
            raise DataError(
                f"{source}: a method of this run needs {need}, and the data has no {' and no '.join(missing)}",
                hint="add the columns, or choose another method"
                + (" or another source of scores (--reward probe, --reward hf)" if need == "scores" else "")
                + "; docs/data.md names the layouts that have them",
            )


def warn_of_little(parts: Parts, settings: Settings, report: Reporter) -> None:
    """Say where the data is too little for what the settings make of it."""
    if len(parts.train) < settings.batch_size:
        report.warn(
            f"a step of {settings.batch_size} pairs is more than the {len(parts.train)} training pairs, so that pairs "
            "repeat within a step; lower --batch-size, or give more data"
        )
    if parts.held_out is None and settings.eval_share > 0:
        report.warn("nothing is held out, so nothing shows how well it does; raise --eval-share, or name --eval-data")


def prepare_pairs(settings: Settings, tokenizer: Any) -> Prepared:
    """The pairs of ``--data``, undivided."""
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
    """Say how rows became pairs."""
    summary = prepared.summary
    report.table(f"data: {summary.source}", ("what", "count", "detail"), summary.table())
    restored, refused = summary.counted["prompt-restored"], summary.dropped.get("prompt-rewritten-by-chat-template")
    if restored or refused:
        left_out = refused.count if refused else 0
        report.warn(
            f"the chat template rewrites the prompt when a reply is added, in {restored + left_out} of {summary.rows} "
            f"rows: {restored} pairs are trained on behind the prompt as it is generated from, {left_out} left out"
        )
    _warn_of_malformed(prepared, report)


def _warn_of_malformed(prepared: Prepared, report: Reporter) -> None:
    warning = malformed_warning(prepared)
    if warning is not None:
        report.warn(warning)


def _with_noise(train: Dataset, settings: Settings, report: Reporter, folder: Path | None) -> tuple[Dataset, list[int]]:
    """The training pairs as they are trained on, and the ids of those that were swapped."""
    noisy, flipped = flip_labels(train, settings.label_noise, settings.seed)
    if settings.label_noise > 0:
        report.note(f"label noise: {len(flipped)} of {len(train)} training pairs swapped")
        if folder is not None:
            write_manifest(
                folder / "label_noise.jsonl", flipped, rate=settings.label_noise, seed=settings.seed, n=len(train)
            )
    return noisy, flipped


def _division(train: Dataset, held_out: Dataset, probe: Dataset | None, validation: Dataset | None) -> str:
    text = f"pairs: {len(train):,} to train on, {len(held_out):,} held out"
    if not probe or not validation:
        return f"{text}, none set aside for a safety probe"
    aside = f"{len(probe):,} + {len(validation):,} set aside for the safety probe"
    return f"{text}, {aside}, the same for every method"
