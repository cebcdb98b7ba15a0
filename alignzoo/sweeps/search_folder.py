"""The folder of a search.

::

    search.json         what was asked, and every trial with its score
    best.yaml           the best point so far, as a recipe: alignzoo run --recipe DIR/best.yaml
    trials/0000/ …      one sweep folder for each batch of trials
    optuna.journal      the study of a search by Optuna
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from alignzoo.base.files import write_json, write_text
from alignzoo.base.stored import read_as, sealed, value_digest
from alignzoo.errors import UsageError
from alignzoo.plan.recipe import Layer
from alignzoo.records.sweep import Cell
from alignzoo.sweeps.search_ranges import Range

SEARCH_FILE, BEST_FILE, TRIALS_FOLDER = "search.json", "best.yaml", "trials"


@dataclass(frozen=True)
class Search:
    """What a search is asked.

    Attributes:
        layers: what all trials share, weakest first.
        seeds: of every trial; its score is the mean over them.
        objective: figures, such as ``world2/asr/validation``; ``min:NAME`` and ``max:NAME`` state the direction of one
            whose name does not say it. The score is their mean, each turned so that more is better.
        ranges: by the words that they set.
        sampler: ``random`` or ``optuna``.
        seed: of the sampler.
        batch: trials between which Optuna learns nothing, so that they can run at the same time.
    """

    layers: Sequence[Layer]
    seeds: Sequence[int]
    objective: Sequence[str]
    ranges: Mapping[str, Range]
    trials: int = 20
    sampler: Literal["random", "optuna"] = "random"
    seed: int = 0
    batch: int = 1

    def question(self) -> dict[str, Any]:
        """What may not change when a search is resumed; more trials may be asked for."""
        return {
            **{word: value for layer in self.layers for word, value in layer.values.items() if word != "out"},
            "--seeds": list(self.seeds),
            "--objective": list(self.objective),
            "--search": self.sampler,
            "--search-seed": self.seed,
            **{f"--range {word}": one.text() for word, one in self.ranges.items()},
        }


@dataclass(frozen=True)
class Trial:
    """A point that was tried.

    Attributes:
        batch: the folder of its sweep below ``trials/``.
        figures: the objective's figures, means over the seeds.
        score: None unless ``scored``.
    """

    number: int
    batch: str
    values: Mapping[str, Any]
    state: Literal["waiting", "scored", "failed"] = "waiting"
    figures: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None

    @property
    def label(self) -> str:
        return Cell("", self.values, 0).label


@dataclass(frozen=True)
class _Stored:
    """What ``search.json`` has."""

    question: Mapping[str, Any]
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class SearchRecord:
    """A search, finished or not."""

    folder: Path
    question: Mapping[str, Any]
    trials: tuple[Trial, ...] = ()

    @property
    def best(self) -> Trial | None:
        """The best trial, of equal ones the first; None before any is scored."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: (trial.score, -trial.number)) if scored else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        best = self.best
        return {
            "folder": str(self.folder),
            "question": dict(self.question),
            "trials": [asdict(trial) for trial in self.trials],
            "best": None if best is None else {**asdict(best), "recipe": str(self.folder / BEST_FILE)},
        }


def is_search(folder: Path) -> bool:
    """Whether it is a search's folder."""
    return (folder / SEARCH_FILE).is_file()


def read_search(folder: Path) -> SearchRecord:
    """The record of a search.

    Raises:
        UsageError: it is none.
        DamagedError: ``search.json`` is not what was written.
    """
    path = folder / SEARCH_FILE
    if not path.is_file():
        raise UsageError(f"{folder} is no search folder: it has no {SEARCH_FILE}", hint="name the folder of --out")
    stored = read_as(path, _Stored)
    return SearchRecord(folder, stored.question, stored.trials)


def begin(folder: Path, search: Search, *, retry: bool) -> SearchRecord:
    """A new record, or that of the same search before.

    Raises:
        UsageError: the folder has another search, or something else.
    """
    if not is_search(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"--out {folder} exists and is not empty", hint="choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        return write_search(SearchRecord(folder, search.question()), search)
    record, now = read_search(folder), search.question()
    changed = [
        f"{word} was {record.question.get(word, 'not set')} and is {now.get(word, 'not set')}"
        for word in dict.fromkeys([*record.question, *now])
        if value_digest(record.question.get(word)) != value_digest(now.get(word))
    ]
    if changed:
        raise UsageError(f"{folder} has another search: {'; '.join(changed)}", hint="choose another --out")
    if retry:
        trials = (replace(one, state="waiting") if one.state == "failed" else one for one in record.trials)
        record = replace(record, trials=tuple(trials))
    return record


def write_search(record: SearchRecord, search: Search) -> SearchRecord:
    """Write the trials, and the best of them as a recipe."""
    write_json(record.folder / SEARCH_FILE, sealed(asdict(_Stored(dict(record.question), record.trials))))
    best = record.best
    if best is not None:
        text = yaml.safe_dump(_recipe(record, best, search), sort_keys=False, allow_unicode=True, width=100)
        write_text(record.folder / BEST_FILE, text)
    return record


def _recipe(record: SearchRecord, best: Trial, search: Search) -> dict[str, Any]:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in best.figures.items())
    scored = sum(trial.state == "scored" for trial in record.trials)
    said = f"Best of {scored} trials of a {search.sampler} search, by {figures} on validation rows."
    shared = {word: value for layer in search.layers for word, value in layer.values.items()}
    shared = {word: value for word, value in shared.items() if word not in ("out", "seed", "validation")}
    return {"description": said, **shared, **best.values}
