"""Run or resume a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alignzoo.base.lock import lock, unlock
from alignzoo.base.stop import stop_requests
from alignzoo.errors import AlignzooError, Interrupted
from alignzoo.records.sweep import LOGS_FOLDER, SweepRecord, read_sweep
from alignzoo.report import Reporter
from alignzoo.sweeps.crew import Crew, resume_command, worker_words
from alignzoo.sweeps.folder import forget_failures, sweep_content, to_do, write_sweep
from alignzoo.sweeps.launchers import launcher_of
from alignzoo.sweeps.plans import check
from alignzoo.sweeps.spec import Spec, expand


def run_sweep(
    folder: Path,
    spec: Spec | None,
    *,
    launcher: str = "local",
    workers: int | None = None,
    retry: bool = False,
    skip_incompatible: bool = False,
    keep_models: bool = False,
    trust_remote_code: bool = False,
    options: Mapping[str, str] | None = None,
    reporter: Reporter,
) -> SweepRecord:
    """Run the cells of a sweep that have not finished; a failed one is noted, and the others continue.

    Args:
        folder: of the sweep; new, or with the same sweep to resume.
        spec: what to run; None: what the folder says.
        workers: processes side by side; by default one per device.
        retry: run failed cells again.
        skip_incompatible: leave out combinations that cannot run.
        keep_models: leave the model and checkpoints of finished runs in their folders.
        options: of the launcher.

    Raises:
        UsageError: the folder has another sweep, or the specification is wrong; nothing has run.
        IncompatibleError: some combinations cannot run; nothing has run.
        Interrupted: asked to stop; the hint says how to resume.
    """
    make = launcher_of(launcher, options or {})
    content = None
    if spec is not None:
        axes, cells = expand(spec)
        checked = check(spec.layers, axes, cells, skip_incompatible=skip_incompatible)
        content = sweep_content(spec.layers, axes, checked.cells, checked.skipped, keep_models=keep_models)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        read_sweep(folder)
    lock(folder, reporter)
    try:
        sweep = read_sweep(folder) if content is None else write_sweep(folder, content)
        if retry:
            forget_failures(sweep)
        engine = make(folder / LOGS_FOLDER / launcher)
        try:
            count = _workers(sweep, workers, engine.capacity)
            crew = Crew(sweep, engine, count, reporter, worker_words(trust_remote_code=trust_remote_code))
            _work(sweep, crew, reporter, trust_remote_code=trust_remote_code)
        finally:
            engine.close()
    finally:
        unlock(folder)
    return sweep


def _workers(sweep: SweepRecord, asked: int | None, capacity: int | None) -> int:
    waiting = sum(1 for _ in to_do(sweep))
    return max(1, min(asked or capacity or 1, waiting))


def _work(sweep: SweepRecord, crew: Crew, reporter: Reporter, *, trust_remote_code: bool) -> None:
    again = resume_command(sweep, trust_remote_code=trust_remote_code)
    try:
        with stop_requests(lambda: reporter.note("stopping: runs are saved first; once more to stop at once")) as stop:
            crew.work(stop)
            stopped = stop.is_set()
    except KeyboardInterrupt:
        stopped = True
    unfinished = [cell for cell in sweep.cells if sweep.status(cell) not in ("finished", "failed")]
    if stopped and unfinished:
        done = len(sweep.cells) - len(unfinished)
        raise Interrupted(f"interrupted: {done} of {len(sweep.cells)} runs are done", hint=f"resume with: {again}")
    if unfinished:
        raise AlignzooError(
            f"{len(unfinished)} runs are locked by processes of another machine, such as {unfinished[0].name}",
            hint=f"if those have ended, delete .*.lock in {sweep.folder / 'runs'} and {again}",
        )
