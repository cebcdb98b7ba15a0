"""The folder of a bench.

::

    bench.json                          what was asked
    default/KIND-N/                     sweeps of methods at their cards' defaults
    tuned/METHOD/noise-RATE/search/     the search for a method's tuned point
    tuned/METHOD/noise-RATE/runs/       the sweep of that point
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alignzoo.base.files import write_json
from alignzoo.base.stored import read_as, sealed
from alignzoo.comparison.groups import Group
from alignzoo.errors import UsageError
from alignzoo.records.run import RunRecord
from alignzoo.records.sweep import SweepRecord, is_sweep, read_sweep
from alignzoo.sweeps.search_folder import SearchRecord, is_search, read_search
from alignzoo.version import __version__
from alignzoo_bench.methods import Entry

BENCH_FILE = "bench.json"
NOISE = "label-noise"
DEFAULT, TUNED = "default", "tuned"


@dataclass(frozen=True)
class Bench:
    """What a bench is asked.

    Attributes:
        world: the recipe whose settings all runs share.
        settings: of the command line, over those of the recipe.
        unsuitable: why the other methods cannot run in this world, by label.
        trials: of the search for each tuned point; 0: nothing is tuned.
    """

    world: str
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    noise: tuple[float, ...]
    entries: tuple[Entry, ...]
    unsuitable: Mapping[str, str] = field(default_factory=dict)
    trials: int = 0
    sampler: str = "random"
    objective: tuple[str, ...] = ()
    alignzoo: str = __version__
    commit: str | None = None


_MAY_GROW = ("entries", "unsuitable", "trials", "sampler", "objective", "alignzoo", "commit")
"""What a later call may add to: methods, and tuned points."""


def is_bench(folder: Path) -> bool:
    """Whether it is a bench's folder."""
    return (folder / BENCH_FILE).is_file()


def read_bench(folder: Path) -> Bench:
    """What the bench in a folder was asked.

    Raises:
        UsageError: there is none.
        DamagedError: ``bench.json`` is not what was written.
    """
    path = folder / BENCH_FILE
    if not path.is_file():
        raise UsageError(f"{folder} is no bench folder: it has no {BENCH_FILE}", hint="name the folder of --out")
    return read_as(path, Bench)


def begin(folder: Path, asked: Bench) -> Bench:
    """Write down what is asked; to a bench that is there, methods and tuned points may be added.

    Raises:
        UsageError: the folder has a bench of other runs, or something else.
    """
    if is_bench(folder):
        then = read_bench(folder)
        before, now = ({k: v for k, v in asdict(one).items() if k not in _MAY_GROW} for one in (then, asked))
        changed = [f"{name} was {before[name]} and is {now[name]}" for name in now if before[name] != now[name]]
        if then.trials and (then.trials, then.sampler, then.objective) != (
            asked.trials,
            asked.sampler,
            asked.objective,
        ):
            changed += [f"the search had {then.trials} trials"] * bool(asked.trials)
        if changed:
            raise UsageError(f"{folder} has another bench: {'; '.join(changed)}", hint="choose another --out")
        entries = tuple(dict.fromkeys([*then.entries, *asked.entries]))
        search = asked if asked.trials else then
        asked = replace(
            then,
            entries=entries,
            unsuitable={**then.unsuitable, **asked.unsuitable},
            trials=search.trials,
            sampler=search.sampler,
            objective=search.objective,
        )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"--out {folder} exists and is not empty", hint="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BENCH_FILE, sealed(asdict(asked)))
    return asked


def default_sweeps(folder: Path, kind: str) -> list[SweepRecord]:
    """The sweeps of the methods of a kind at their defaults, oldest first."""
    folders = sorted((folder / DEFAULT).glob(f"{kind}-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return [read_sweep(path) for path in folders if is_sweep(path)]


def tuned_folder(folder: Path, entry: Entry, noise: float) -> Path:
    """Where the search for a tuned point and its runs are."""
    return folder / TUNED / entry.label.replace("=", "-") / f"noise-{noise:g}"


def sweeps_of(folder: Path, bench: Bench) -> Iterator[SweepRecord]:
    """All sweeps of a bench but those of searches."""
    for kind in dict.fromkeys(entry.kind for entry in bench.entries):
        yield from default_sweeps(folder, kind)
    for entry in bench.entries:
        for noise in bench.noise:
            runs = tuned_folder(folder, entry, noise) / "runs"
            if is_sweep(runs):
                yield read_sweep(runs)


def searches_of(folder: Path, bench: Bench) -> Iterator[tuple[Entry, float, SearchRecord]]:
    """The searches of a bench."""
    for entry in bench.entries:
        for noise in bench.noise:
            where = tuned_folder(folder, entry, noise) / "search"
            if is_search(where):
                yield entry, noise, read_search(where)


def groups_of(folder: Path, bench: Bench, part: str, entries: Sequence[Entry]) -> list[Group]:
    """The finished runs of ``default`` or ``tuned`` points, one group for each method and noise rate, whose block is
    the noise rate."""
    found = []
    for noise in bench.noise:
        for entry in entries:
            runs = _default_runs(folder, entry, noise) if part == DEFAULT else _tuned_runs(folder, entry, noise)
            if runs:
                found.append(Group(entry.label, runs, {entry.kind: entry.name}, f"{NOISE}={noise:g}"))
    return found


def _default_runs(folder: Path, entry: Entry, noise: float) -> dict[int, RunRecord]:
    return {
        cell.seed: run
        for sweep in default_sweeps(folder, entry.kind)
        if entry.name in sweep.axes[entry.kind]
        for cell, run in sweep.finished()
        if cell.values[entry.kind] == entry.name and cell.values[NOISE] == noise
    }


def _tuned_runs(folder: Path, entry: Entry, noise: float) -> dict[int, RunRecord]:
    where = tuned_folder(folder, entry, noise)
    if is_sweep(where / "runs"):
        return {cell.seed: run for cell, run in read_sweep(where / "runs").finished()}
    search = read_search(where / "search") if is_search(where / "search") else None
    best = search.best if search is not None else None
    return _default_runs(folder, entry, noise) if best is not None and best.number == 0 else {}
