"""What runs must share before their figures can be compared: data, splits, judges, prompts and training steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.comparison.groups import Group
from alignzoo.records.run import RunRecord

_SHOWN = 3
"""Groups named for each value."""
_SETTINGS = {
    "base model": ("model", "quantize"),
    "data": ("data", "data.split", "data.format", "label-noise"),
    "splits": ("eval-data", "eval-data.split", "eval-data.format", "eval-share", "eval-pairs", "validation"),
    "evaluation prompts": ("eval-suite.limit", "eval-suite.max-new-tokens"),
}


@dataclass(frozen=True)
class Disagreement:
    """A fact that groups do not share.

    Attributes:
        what: ``base model``, ``data``, ``splits``, ``judges``, ``evaluation prompts`` or ``training steps``.
        fact: which one of it, as ``label-noise``.
        block: of the groups.
        groups: their labels by the value.
        seed: of the runs, for facts that each seed has of its own.
    """

    what: str
    fact: str
    block: str
    groups: Mapping[str, tuple[str, ...]]
    seed: int | None = None

    def __str__(self) -> str:
        values = "; ".join(f"{value} in {_some(groups)}" for value, groups in self.groups.items())
        at = "" if self.seed is None else f" at seed {self.seed}"
        block = f" ({self.block})" if self.block else ""
        return f"{self.what}{block}: {self.fact}{at} is {values}"


def differences(groups: Sequence[Group]) -> list[Disagreement]:
    """What the groups of a block do not share although figures depend on it; empty if they can be compared.

    Training rows are compared seed by seed, and only between groups with the same selectors: which rows a selector
    keeps is its effect. Facts that a run lacks, as of a suite that it was not evaluated on, count as shared.

    Raises:
        DamagedError: a file of a run is not what was written.
    """
    values: dict[tuple[str, str, str, int | None], dict[str, dict[str, None]]] = {}
    for group in groups:
        for seed, run in group.runs.items():
            for what, fact, value in _facts(run):
                shared = values.setdefault((group.block, what, fact, None), {})
                shared.setdefault(_shown(value), {})[group.label] = None
            for what, fact, value in _facts_of_a_seed(run):
                shared = values.setdefault((group.block, what, fact, seed), {})
                shared.setdefault(_shown(value), {})[group.label] = None
    found = [
        Disagreement(what, fact, block, {value: tuple(labels) for value, labels in by_value.items()}, seed)
        for (block, what, fact, seed), by_value in values.items()
        if len(by_value) > 1
    ]
    return _first_of_each(found)


def _facts(run: RunRecord) -> Iterator[tuple[str, str, Any]]:
    for what, words in _SETTINGS.items():
        for word in words:
            yield what, word, run.values.get(word)
    yield "judges", "--judge", [*run.methods["judge"], *_options(run, "judge.")]
    if run.result is not None:
        yield "training steps", "the number", run.result.steps
    yield from _evaluated(run)


def _evaluated(run: RunRecord) -> Iterator[tuple[str, str, Any]]:
    evaluation = run.evaluation
    if evaluation is None:
        return
    for judge in evaluation.judges:
        yield "judges", judge.name, [judge.judge, judge.options, judge.identity]
    for suite in evaluation.suites:
        yield "evaluation prompts", suite.name, [suite.prompts, suite.digest[:12], suite.decoding]
    yield "evaluation prompts", "system prompt", evaluation.model.system
    if evaluation.tasks is not None:
        tasks = evaluation.tasks
        yield "evaluation prompts", "lm-eval", [tasks.lm_eval, tasks.limit, tasks.seed, tasks.chat_template]
        for name, task in tasks.results.items():
            yield "evaluation prompts", f"task {name}", [task.version, task.n, task.fewshot]


def _facts_of_a_seed(run: RunRecord) -> Iterator[tuple[str, str, Any]]:
    result = run.result
    if result is None:
        return
    yield "splits", "the number of held-out rows", result.pairs.get("held_out")
    selectors = [*run.methods["selector"], *_options(run, "selector.")]
    under = f" under {', '.join(selectors)}" if selectors else ""
    yield "data", f"the hash of the training rows{under}", result.train_identity


def _options(run: RunRecord, prefix: str) -> list[str]:
    return [f"{word}={value}" for word, value in run.values.items() if word.startswith(prefix)]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(text for text in map(_shown, value)) or "none"
    return "none" if value is None else str(value)


def _some(groups: Sequence[str]) -> str:
    more = len(groups) - _SHOWN
    return f"{', '.join(groups[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"


def _first_of_each(found: Sequence[Disagreement]) -> list[Disagreement]:
    """Facts of seeds once, for the first seed; and no hash of rows where a setting of the data explains it."""
    explained = {(one.block, one.what) for one in found if one.seed is None}
    first: dict[tuple[str, str, str], Disagreement] = {}
    for one in found:
        if one.seed is None or (one.block, one.what) not in explained:
            first.setdefault((one.block, one.what, one.fact), one)
    return list(first.values())
