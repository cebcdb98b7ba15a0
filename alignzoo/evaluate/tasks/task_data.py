"""lm-eval's tasks with their data, loaded before any weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.errors import AlignzooError, DataError, UsageError
from alignzoo.evaluate.tasks.task_names import Chosen, TaskName, leaves, task_manager


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks with their documents.

    Attributes:
        tasks: lm-eval's tasks by name.
        groups: its groups by name, each with its tasks, those inside others first.
        chosen: what was asked for, tags replaced by their tasks.
    """

    tasks: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)


def load_tasks(
    chosen: Sequence[Chosen], known: Mapping[str, TaskName], include_path: str | Path | None = None
) -> LoadedTasks:
    """Load tasks and their data, with the few-shot examples asked for.

    Raises:
        DataError: a dataset cannot be loaded.
        AlignzooError: a task needs a package that is not installed.
        UsageError: two groups have the same task with different settings.
    """
    manager = task_manager(include_path, known)
    loaded = LoadedTasks()
    for one in chosen:
        found = _load(manager, one.name, known)
        for name, task in found["tasks"].items():
            _set_fewshot(task, one.fewshot)
            if name in loaded.tasks and str(loaded.tasks[name].dump_config()) != str(task.dump_config()):
                raise UsageError(
                    f"task {name} is asked for twice with different settings",
                    hint="evaluate its groups one by one, to different --out folders",
                )
            loaded.tasks.setdefault(name, task)
        loaded.groups.update(reversed(found["groups"].items()))
        loaded.chosen.extend((found["groups"] and [next(iter(found["groups"]))]) or found["tasks"])
    return loaded


def _load(manager: Any, name: str, known: Mapping[str, TaskName]) -> Any:
    try:
        return manager.load([name])
    except Exception as error:
        raise _explained(error, name, manager, known) from error


def _explained(error: Exception, name: str, manager: Any, known: Mapping[str, TaskName]) -> AlignzooError:
    """What a task lacks: a package, or its data."""
    missing = next((cause for cause in _causes(error) if isinstance(cause, ModuleNotFoundError)), None)
    if missing is not None:
        return AlignzooError(
            f"task {name} of lm-eval needs the package {missing.name}, which is not installed",
            hint=f'pip install "lm-eval[{name}]", or pip install {missing.name}',
        )
    failing = _failing(name, manager, known)
    dataset = known[failing].data if failing in known else None
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DataError(
        f"the data of task {failing} cannot be loaded ({dataset or 'see its YAML file'}): {reason}",
        hint="load it once with a network; it is kept in $HF_HOME, which can be copied to a machine without "
        "(there: HF_HUB_OFFLINE=1)",
    )


def _failing(name: str, manager: Any, known: Mapping[str, TaskName]) -> str:
    """The task of a group that cannot be loaded."""
    tasks = list(leaves(name, known))
    for task in tasks if len(tasks) > 1 else ():
        try:
            manager.load([task])
        except Exception:
            return task
    return tasks[0] if len(tasks) == 1 else name


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _set_fewshot(task: Any, count: int | None) -> None:
    """As ``lm_eval.evaluator.simple_evaluate`` does: a task that says 0 keeps 0."""
    own = task.get_config("num_fewshot")
    if count is not None and own != 0:
        task.set_config(key="num_fewshot", value=count)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
