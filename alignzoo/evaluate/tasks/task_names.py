"""The names of lm-eval's tasks, groups and tags, kept between runs: reading its 14,000 files takes seconds."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignzoo.base.cache import cache_folder
from alignzoo.base.files import local_path, write_text
from alignzoo.base.stored import read_sealed, sealed, value_digest
from alignzoo.base.suggest import suggest
from alignzoo.errors import DamagedError, UnknownNameError, UsageError
from alignzoo.evaluate.tasks.capability import GROUPS

_WILD = frozenset("*?[")
_YAML = (".yaml", ".yml")
_FORMAT = 1
"""Of the kept list; raise it when :class:`TaskName` changes."""


@dataclass(frozen=True)
class TaskName:
    """What a name stands for.

    Attributes:
        kind: lm-eval's kind: TASK, PY_TASK, GROUP or TAG.
        path: its YAML file; None for a tag.
        members: the names that a group or tag consists of.
        unsafe: whether it runs code that the model writes.
        data: the dataset it reads, as its YAML file says.
    """

    kind: str
    path: str | None
    members: Sequence[str] = ()
    unsafe: bool = False
    data: str | None = None


@dataclass(frozen=True)
class Chosen:
    """A task, group or tag to run, with the few-shot examples that a capability group gives it."""

    name: str
    fewshot: int | None = None


def task_names(names: Iterable[str], include_path: str | Path | None = None) -> dict[str, TaskName]:
    """What names stand for: of lm-eval's own tasks, and of the YAML files in ``include_path``, which win.

    lm-eval's are left out if ``names`` are all of ``include_path``: the first time, reading them takes a while.

    Raises:
        UsageError: ``include_path`` is not a folder with tasks.
    """
    if include_path is None:
        return _built_in()
    folder = local_path(include_path)
    own = _read(folder) if folder.is_dir() else {}
    if not own:
        raise UsageError(
            f"--include-path {include_path} has no lm-eval task", hint="it takes a folder with YAML files of tasks"
        )
    if all(leaf in own or is_file(leaf) for name in names for leaf in leaves(name, own)):
        return own
    return {**_built_in(), **own}


def choose(names: Iterable[str], known: Mapping[str, TaskName], fewshot: int | None = None) -> list[Chosen]:
    """Tasks to run by what was typed: names, capability groups, wildcards and YAML files, each once, in order.

    Args:
        fewshot: takes the place of the few-shot examples of a capability group.

    Raises:
        UnknownNameError: there is no such name.
    """
    chosen: dict[str, Chosen] = {}
    for name in names:
        for one in _meant(name, known):
            chosen.setdefault(one.name, one if fewshot is None else Chosen(one.name, fewshot))
    return list(chosen.values())


def check_tasks(
    names: Sequence[str], include_path: str | Path | None = None, *, confirm_unsafe_code: bool = False
) -> list[str]:
    """The tasks, groups and tags that names stand for: checks a command line before weights are loaded.

    Raises:
        UnknownNameError: there is no such name; with the nearest ones.
        UsageError: a task runs code that the model writes, and that was not confirmed.
    """
    known = task_names(names, include_path)
    chosen = [one.name for one in choose(names, known)]
    unsafe = sorted({leaf for name in chosen for leaf in leaves(name, known) if leaf in known and known[leaf].unsafe})
    if unsafe and not confirm_unsafe_code:
        listed = f"{', '.join(unsafe[:3])}{' …' if len(unsafe) > 3 else ''}"
        raise UsageError(
            f"{listed}: runs code that the model writes, on this machine",
            hint="run it in a container, with --confirm-run-unsafe-code",
        )
    return chosen


def leaves(name: str, known: Mapping[str, TaskName]) -> Iterator[str]:
    """The tasks of a group or tag, at any depth; of a task, itself."""
    entry = known.get(name)
    if entry is None or not entry.members:
        yield name
        return
    for member in entry.members:
        if member != name:
            yield from leaves(member, known)


def task_manager(include_path: str | Path | None, known: Mapping[str, TaskName]) -> Any:
    """lm-eval's ``TaskManager`` over known names, without reading all its files again."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

    manager = TaskManager(include_defaults=False, include_path=None if include_path is None else [str(include_path)])
    own = dict(manager.task_index)
    for name, entry in known.items():
        path = None if entry.path is None else Path(entry.path)
        tags = set(entry.members) if entry.kind == Kind.TAG.name else set()
        manager.task_index[name] = own.get(name) or Entry(name=name, kind=Kind[entry.kind], yaml_path=path, tags=tags)
    return manager


def is_file(name: str) -> bool:
    """Whether a task was given as a YAML file."""
    return name.endswith(_YAML) and local_path(name).is_file()


def _meant(name: str, known: Mapping[str, TaskName]) -> list[Chosen]:
    if name in GROUPS:
        return [Chosen(task.name, task.fewshot) for task in GROUPS[name].tasks]
    if name in known or is_file(name):
        return [Chosen(name)]
    if _WILD & set(name):
        found = [Chosen(one) for one in known if fnmatchcase(one, name)]
        if found:
            return found
    raise UnknownNameError(
        f"no task of lm-eval is named {name!r}",
        hint=suggest(name, [*GROUPS, *known]) or "all of them: lm_eval ls tasks; your own: --include-path FOLDER",
    )


def _built_in() -> dict[str, TaskName]:
    """lm-eval's own names."""
    folder = Path(str(find_spec("lm_eval").origin)).parent / "tasks"  # type: ignore[union-attr]
    state = value_digest([_FORMAT, version("lm_eval"), str(folder), folder.stat().st_mtime_ns])
    return _cached(folder, cache_folder("lm-eval") / f"tasks-{state[:16]}.json")


@cache
def _cached(folder: Path, path: Path) -> dict[str, TaskName]:
    """The names in a folder, from a file if they were read before."""
    with contextlib.suppress(DamagedError):
        return {name: TaskName(*entry) for name, entry in read_sealed(path)["names"].items()}
    names = _read(folder)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(sealed({"names": {name: astuple(entry) for name, entry in names.items()}})))
    return names


def _read(folder: Path) -> dict[str, TaskName]:
    """The names in a folder's YAML files."""
    from lm_eval.tasks._index import TaskIndex

    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)  # names that two of its files share
    try:
        entries = TaskIndex.build([folder])
    finally:
        log.setLevel(level)
    return {name: _entry(entry) for name, entry in sorted(entries.items())}


def _entry(entry: Any) -> TaskName:
    config = entry.cfg or {}
    tagged = entry.kind.name == "TAG"
    return TaskName(
        kind=entry.kind.name,
        path=None if entry.yaml_path is None else str(entry.yaml_path),
        members=tuple(sorted(entry.tags) if tagged else _members(config.get("task"))),
        unsafe=bool(config.get("unsafe_code", False)),
        data=None if config.get("dataset_path") is None else str(config["dataset_path"]),
    )


def _members(tasks: Any) -> Iterator[str]:
    """The names in a group's list, which holds names and settings of tasks and groups."""
    for task in tasks if isinstance(tasks, list) else []:
        if isinstance(task, str):
            yield task
        elif "group" in task:
            yield from [str(task["group"])] if "task" not in task else _members(task["task"])
        elif "task" in task:
            yield str(task["task"])
