"""The parts of a run's data: training pairs, held-out pairs, and the pairs kept for the safety probe.

They share no prompt. What is held out depends on the prompts alone and not on the run's seed, so that runs with
different seeds and methods can be compared on the same pairs; label noise touches the training pairs only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.data.noise import flip_labels, write_manifest
from alignzoo.data.prepare import Prepared, prepare
from alignzoo.data.splits import drop_prompts, split_by_prompt
from alignzoo.data.summary import DataSummary
from alignzoo.errors import DataError
from alignzoo.plugin.resolve import SANDBOX
from alignzoo.plugin.settings import Settings
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from datasets import Dataset

PROBE_SHARE = 0.1
"""Share of the training prompts kept for a probe where a method needs one and nothing else was asked for."""
PROBE_VALIDATION = 0.3
"""Share of those prompts that validate it."""


@dataclass(frozen=True)
class Parts:
    """What a run trains, evaluates and probes on.

    Attributes:
        held_out: None where nothing was held out.
        probe_train, probe_validation: None where no probe share was asked for.
        summaries: how the rows became pairs, by part.
        fingerprint: content hash of the source's kept pairs.
        highest_id: the largest token id of all pairs.
    """

    train: Dataset
    held_out: Dataset | None
    probe_train: Dataset | None
    probe_validation: Dataset | None
    summaries: dict[str, DataSummary]
    fingerprint: str
    highest_id: int


def load_parts(
    settings: Settings, tokenizer: Any, *, needs_probe: bool, report: Reporter, folder: Path | None = None
) -> Parts:
    """Load, tokenise and divide the data of a run; with ``folder``, the noise manifest is written there.

    Raises:
        DataError: unreadable or malformed data, or no pair left to train on.
    """
    prepared = _prepare(settings, settings.data, settings.data_split, settings.data_format, "train", tokenizer)
    summaries = {"train": prepared.summary}
    describe(prepared.summary, report)
    train, held_out, highest_id = prepared.dataset, None, _highest_id(prepared.dataset)
    if settings.eval_data is not None or settings.data == SANDBOX:
        other = _prepare(settings, settings.eval_data or SANDBOX, None, None, "validation", tokenizer)
        summaries["eval"] = other.summary
        held_out = other.dataset
        highest_id = max(highest_id, _highest_id(held_out))
        train, shared = drop_prompts(train, set(held_out["prompt_key"][:]))
        if shared:
            report.warn(f"{shared} training pairs have prompts of the held-out pairs and were left out")
    elif settings.eval_share > 0:
        parts = split_by_prompt(train, {"held-out": settings.eval_share, "train": 1 - settings.eval_share}, 0, "eval")
        train, held_out = parts["train"], parts["held-out"]
    if held_out is not None:
        held_out = held_out.select(range(min(len(held_out), settings.eval_pairs))) if len(held_out) else None
    probe_share = settings.probe_share
    if probe_share is None:
        probe_share = PROBE_SHARE if needs_probe else 0.0
    probe_train = probe_validation = None
    if probe_share > 0:
        shares = {
            "train": 1 - probe_share,
            "probe": probe_share * (1 - PROBE_VALIDATION),
            "validation": probe_share * PROBE_VALIDATION,
        }
        parts = split_by_prompt(train, shares, 0, "probe")
        train, probe_train, probe_validation = parts["train"], parts["probe"], parts["validation"]
    if len(train) == 0:
        raise DataError(
            f"{settings.data}: no pair is left to train on after holding out "
            f"{len(held_out) if held_out is not None else 0} pairs",
            hint="give more data, or a lower --eval-share and --probe.share",
        )
    train = _with_noise(train, settings, report, folder)
    report.note(_division(train, held_out, probe_train, probe_validation))
    return Parts(train, held_out, probe_train, probe_validation, summaries, prepared.fingerprint, highest_id)


def prepare_pairs(settings: Settings, tokenizer: Any) -> Prepared:
    """The pairs of ``--data``, undivided."""
    return _prepare(settings, settings.data, settings.data_split, settings.data_format, "train", tokenizer)


def _prepare(
    settings: Settings, source: str, split: str | None, data_format: str | None, part: str, tokenizer: Any
) -> Prepared:
    if source != SANDBOX:
        return prepare(
            source,
            tokenizer,
            split=split,
            data_format=data_format,
            max_length=settings.max_length,
            max_prompt_length=settings.max_prompt_length,
        )
    from datasets import Dataset

    from alignzoo.sandbox import TRAIN_PAIRS, VALIDATION_PAIRS, preference_rows

    rows = preference_rows(part, TRAIN_PAIRS if part == "train" else VALIDATION_PAIRS)
    prepared = prepare(
        Dataset.from_list(rows),
        tokenizer,
        max_length=settings.max_length,
        max_prompt_length=settings.max_prompt_length,
    )
    return replace(prepared, summary=replace(prepared.summary, source=SANDBOX, split=part))


def describe(summary: DataSummary, report: Reporter) -> None:
    """Say how rows became pairs."""
    report.table(f"data: {summary.source}", ("what", "count", "detail"), summary.table())


def _with_noise(train: Dataset, settings: Settings, report: Reporter, folder: Path | None) -> Dataset:
    noisy, flipped = flip_labels(train, settings.label_noise, settings.seed)
    if settings.label_noise > 0:
        report.note(f"label noise: {len(flipped)} of {len(train)} training pairs swapped")
        if folder is not None:
            write_manifest(
                folder / "label_noise.jsonl", flipped, rate=settings.label_noise, seed=settings.seed, n=len(train)
            )
    return noisy


def _highest_id(pairs: Dataset) -> int:
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    columns = (pairs.data[f"{side}_ids"] for side in ("prompt", "chosen", "rejected"))
    return max(pc.max(pc.list_flatten(column)).as_py() for column in columns)


def _division(train: Dataset, held_out: Dataset | None, probe: Dataset | None, validation: Dataset | None) -> str:
    text = f"pairs: {len(train)} to train on, {len(held_out) if held_out is not None else 0} held out"
    if probe is not None and validation is not None:
        text += f", {len(probe)} + {len(validation)} for the probe (training + validation)"
    return text
