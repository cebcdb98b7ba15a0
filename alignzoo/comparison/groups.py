"""Runs grouped by everything but their seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignzoo.base.stored import value_digest
from alignzoo.base.suggest import suggest
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import UsageError
from alignzoo.records.run import RunRecord, read_run
from alignzoo.records.sweep import is_sweep, read_sweep, shown_value

DATA_WORDS = (
    *("model", "data", "data.split", "data.format", "label-noise"),
    *("eval-data", "eval-data.split", "eval-data.format", "eval-share", "eval-pairs"),
)
"""Words that change the task: the axes of a sweep that set them divide its groups into blocks."""
_BYSTANDERS = (
    *("seed", "out", "track", "observe", "samples", "show-samples", "data.workers", "data.strict", "reference-cache"),
    *("eval-every", "save-every", "keep-checkpoints", "save-model", "trust-remote-code"),
)
"""Words that change nothing in the result of a run but its seed."""


@dataclass(frozen=True)
class Group:
    """Finished runs that differ only in their seed.

    Attributes:
        label: what tells it from the other groups of its block, such as ``dpo sam`` or ``dpo lr=0.0001``.
        runs: by seed.
        values: the words that tell groups apart, with this group's values.
        block: what its block shares, such as ``label-noise=0.2``; groups are compared within a block.
    """

    label: str
    runs: Mapping[int, RunRecord]
    values: Mapping[str, Any] = field(default_factory=dict)
    block: str = ""

    @property
    def name(self) -> str:
        """The label with the block, unique among all groups."""
        return f"{self.label} ({self.block})" if self.block else self.label


def groups_of(paths: Iterable[Path], *, by: Collection[str] = ()) -> list[Group]:
    """The finished runs of folders of runs and sweeps, in order.

    A single sweep has one group per point of its grid. Other runs are grouped by every value of their plans but the
    seed and what changes nothing, such as the folder. A run whose seed its group already has begins a group of its own.

    Args:
        by: words whose values divide the groups into blocks, besides the axes of sweeps that set the model, the data
            or their noise.

    Raises:
        UsageError: a folder is neither a run nor a sweep, or no run is finished; or ``by`` is no word of theirs.
        AlignzooError: a file is damaged.
    """
    folders = list(paths)
    sweeps = [read_sweep(folder) for folder in folders if is_sweep(folder)]
    axes = [word for sweep in sweeps for word in sweep.axes]
    blocks = {*by, *(word for word in axes if word in DATA_WORDS)}
    if len(folders) == 1 and sweeps:
        order = list(dict.fromkeys(cell.label for cell in sweeps[0].cells))
        found = sorted(sweeps[0].finished(), key=lambda one: order.index(one[0].label))
        runs = [(dict(cell.values), run) for cell, run in found]
        words = list(sweeps[0].axes)
    else:
        runs = [(_decisive(run), run) for run in _runs(folders)]
        words = _telling([values for values, _ in runs])
    if not runs:
        raise UsageError(
            f"no finished run in {', '.join(map(str, folders))}", hint="a run is finished once it has a result.json"
        )
    _check_words(by, [values for values, _ in runs])
    words += [word for word in by if word not in words]
    return _labelled([Group("", seeds, values) for values, seeds in _by_values(runs)], words, blocks)


def unfinished(paths: Iterable[Path]) -> list[str]:
    """Sentences about sweeps of which runs are missing.

    Raises:
        DamagedError: a sweep's file is not what was written.
    """
    found = []
    for sweep in (read_sweep(folder) for folder in paths if is_sweep(folder)):
        states = Counter(sweep.status(cell) for cell in sweep.cells)
        missing = ", ".join(f"{count} {state}" for state, count in states.items() if state != "finished")
        if missing:
            finished = states["finished"]
            found.append(f"{sweep.folder}: {finished} of {len(sweep.cells)} runs are finished; {missing}")
    return found


def find_group(groups: Sequence[Group], asked: str) -> str:
    """The label of the groups that a user names: the label itself, or ``word=value`` of some words, by commas or
    spaces.

    Raises:
        UsageError: no group has it, or several of one block.
    """
    labels = list(dict.fromkeys(group.label for group in groups))
    if asked in labels:
        return asked
    wanted = dict(part.partition("=")[::2] for part in asked.replace(",", " ").split())
    matching = list(
        dict.fromkeys(
            group.label
            for group in groups
            if all(word in group.values and shown_value(group.values[word]) == wanted[word] for word in wanted)
        )
    )
    if len(matching) == 1:
        return matching[0]
    found = f"is several groups: {', '.join(matching)}" if matching else "is none of the groups"
    hint = suggest(asked, labels) or f"the groups are: {', '.join(labels)}"
    raise UsageError(f"{asked!r} {found}", hint=f"name one of: {', '.join(matching)}" if matching else hint)


def _runs(folders: Iterable[Path]) -> Iterable[RunRecord]:
    for folder in folders:
        if is_sweep(folder):
            yield from (run for _, run in read_sweep(folder).finished())
            continue
        run = read_run(folder)
        if not run.finished:
            raise UsageError(f"the run in {folder} is not finished", hint=f"finish it: alignzoo run --resume {folder}")
        yield run


def _decisive(run: RunRecord) -> dict[str, Any]:
    return {word: value for word, value in run.values.items() if word not in _BYSTANDERS}


def _by_values(
    runs: Sequence[tuple[Mapping[str, Any], RunRecord]],
) -> Iterable[tuple[Mapping[str, Any], dict[int, RunRecord]]]:
    """The runs of equal values by seed; a second one of the same seed goes to a second group of these values."""
    groups: dict[tuple[str, int], tuple[Mapping[str, Any], dict[int, RunRecord]]] = {}
    for values, run in runs:
        digest, number = value_digest(dict(values)), 0
        while run.seed in groups.setdefault((digest, number), (values, {}))[1]:
            number += 1
        groups[digest, number][1][run.seed] = run
    return groups.values()


def _telling(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Words that tell runs apart, methods first: each separates runs that those before it do not, so that what follows
    from another word, as the options of a loss, is left out."""
    telling: list[str] = []
    classes = 1
    for word in dict.fromkeys(word for values in runs for word in values):
        separated = {value_digest([values.get(one) for one in (*telling, word)]) for values in runs}
        if len(separated) > classes:
            telling, classes = [*telling, word], len(separated)
    return telling


def _check_words(by: Collection[str], runs: Sequence[Mapping[str, Any]]) -> None:
    known = list(dict.fromkeys(word for values in runs for word in values))
    for word in by:
        if word not in known:
            raise UsageError(
                f"the runs have no value of {word!r}", hint=suggest(word, known) or f"there are: {', '.join(known)}"
            )


def _labelled(groups: Sequence[Group], words: Sequence[str], blocks: Collection[str]) -> list[Group]:
    """The groups with labels that are unique in each block."""
    named = []
    for group in groups:
        values = {word: group.values.get(word) for word in words}
        block = " ".join(_pair(word, value) for word, value in values.items() if word in blocks)
        named.append(replace(group, values=values, block=block))
    rest = [word for word in words if word not in blocks]
    for label in (_short, _full):
        labels = [label(group, rest) for group in named]
        if len({*zip((group.block for group in named), labels, strict=True)}) == len(named):
            break
    else:
        labels = [_short(group, rest) for group in named]
    count: dict[tuple[str, str], int] = {}
    final = []
    for group, label_of_it in zip(named, labels, strict=True):
        times = count[group.block, label_of_it] = count.get((group.block, label_of_it), 0) + 1
        final.append(replace(group, label=label_of_it if times == 1 else f"{label_of_it} ({times})"))
    return final


def _short(group: Group, words: Sequence[str]) -> str:
    """The names of methods, ``none`` left out, and the other words with their values."""
    shown = [shown_value(group.values[word]) if word in KINDS else _pair(word, group.values[word]) for word in words]
    return " ".join(part for part in shown if part != "none") or ("none" if words else _folder(group))


def _full(group: Group, words: Sequence[str]) -> str:
    return " ".join(_pair(word, group.values[word]) for word in words) or _folder(group)


def _folder(group: Group) -> str:
    """For groups that nothing tells apart: the folder of the only run, or all of them."""
    names = [run.name for run in group.runs.values()]
    return names[0] if len(names) == 1 else "all"


def _pair(word: str, value: Any) -> str:
    return f"{word}={shown_value(value)}"
