"""Start or resume a run. ``run`` is the Python API, ``execute`` and ``resume`` are the command's.

from alignzoo import run
result = run({"loss": "dpo", "geometry": "shapo-token", "max-steps": 20})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.base.files import check_links
from alignzoo.base.stop import interruptible
from alignzoo.contract.result import RunResult
from alignzoo.distributed.launch import distributed_backend
from alignzoo.errors import DamagedError
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import changed_plugins, read_plan
from alignzoo.plan.recipe import Layer, flatten, read_recipe
from alignzoo.plan.resolve import require, resolve
from alignzoo.report import Reporter
from alignzoo.runs.course import Course
from alignzoo.runs.folder import RUN_FILES
from alignzoo.runs.shared import Shared


def run(recipe: str | Path | Mapping[str, Any] | Plan | None = None, *, report: Reporter | None = None) -> RunResult:
    """Run a recipe from Python: its name, its file, its words as a mapping, or a resolved plan.

    Raises:
        AlignzooError: and its kinds, as the command line's exit codes.
    """
    if isinstance(recipe, Plan):
        plan = recipe
    else:
        layers: list[Layer] = []
        if isinstance(recipe, Mapping):
            layers.append(Layer("python", flatten(dict(recipe), "the recipe")))
        elif recipe is not None:
            layers.append(read_recipe(str(recipe)))
        plan = require(resolve(layers, distributed=distributed_backend()))
    return execute(plan, reporter=report or Reporter())


def execute(plan: Plan, *, reporter: Reporter, shared: Shared | None = None, alone: bool = False) -> RunResult:
    """Train a plan in a new run folder.

    Args:
        shared: what earlier runs of this process have left; results are the same with and without it.
        alone: the process is for this run only, see :func:`~alignzoo.base.heap.collecting_later`.
    """
    with interruptible():
        return Course(plan, reporter, None, shared, alone).go()


def resume(
    folder: str | Path, *, reporter: Reporter, trust_remote_code: bool = False, shared: Shared | None = None
) -> RunResult:
    """Resume a run from its last complete checkpoint; its plan does not change.

    Args:
        trust_remote_code: must be set again for a run that was started with it.
        shared: as in :func:`execute`.

    Raises:
        AlignzooError: not a run folder, a part of it is a link elsewhere, or its original model or data have
            changed.
    """
    path = Path(folder)
    plan = read_plan(path, trust_remote_code=trust_remote_code)
    finished = _finished(path, reporter)
    if finished is not None:
        reporter.note(f"{path} has already finished all {finished.steps} steps; nothing to do")
        return finished
    check_links(path, RUN_FILES)
    for remark in changed_plugins(path, plan):
        reporter.warn(remark)
    with interruptible():
        return Course(plan, reporter, path, shared).go()


def _finished(folder: Path, reporter: Reporter) -> RunResult | None:
    """The result of a finished run; a corrupt one is recomputed from the last checkpoint."""
    try:
        return RunResult.load(folder)
    except DamagedError as error:
        reporter.warn(f"{error.message}; finishing the run again")
        return None
