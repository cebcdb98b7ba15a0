"""A worker process of a sweep: runs one cell after another, so that what takes long to start starts once.

python -m alignzoo.sweeps.worker SWEEP
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from alignzoo.base.stop import interruptible, was_interrupted
from alignzoo.errors import AlignzooError, Interrupted
from alignzoo.plan.resolve import require
from alignzoo.plan.started import PLAN_FILE
from alignzoo.plugin.registry import plugins_from
from alignzoo.records.sweep import Cell, SweepRecord, read_sweep
from alignzoo.report import Reporter
from alignzoo.sweeps.folder import claim, recipe_layers, release, to_do, write_failure
from alignzoo.sweeps.plans import cell_plan

if TYPE_CHECKING:
    from alignzoo.runs.shared import Shared

STOPPED = 130


class LogReporter(Reporter):
    """Writes a run's messages to its log; progress is in its metrics."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.note("\n".join([title, *("  ".join(cells).rstrip() for cells in (columns, *rows))]))


def work(sweep: SweepRecord, *, trust_remote_code: bool = False) -> None:
    """Run the cells that nobody else has, until none is left.

    Raises:
        KeyboardInterrupt, Interrupted: asked to stop; the cell at hand has been saved.
    """
    from alignzoo.runs.shared import Shared

    shared = Shared()
    while True:
        cell = next((cell for cell in to_do(sweep) if claim(sweep, cell)), None)
        if cell is None:
            return
        try:
            with _logged(sweep.log(cell)) as report:
                if not _run(sweep, cell, report, shared, trusting=trust_remote_code):
                    shared = Shared()
                    gc.collect()
        finally:
            release(sweep, cell)


def _run(sweep: SweepRecord, cell: Cell, report: Reporter, shared: Shared, *, trusting: bool) -> bool:
    """Run or resume one cell; False if it failed, which is noted."""
    from alignzoo.runs.execute import execute, resume

    folder = sweep.run_folder(cell)
    try:
        if (folder / PLAN_FILE).is_file():
            resume(folder, reporter=report, trust_remote_code=trusting, shared=shared)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # a start that was killed before there was anything to resume
            whole, keep = folder.absolute(), sweep.keep_models
            layers = recipe_layers(sweep)
            plan = cell_plan(layers, sweep.axes, cell, whole, keep_models=keep, trust_remote_code=trusting)
            execute(require(plan), reporter=report, shared=shared)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # third-party code may raise anything; the other runs continue
        if was_interrupted():  # and may raise something else when it is stopped
            raise KeyboardInterrupt from error
        if isinstance(error, AlignzooError):
            report.note(f"error: {error}")
            write_failure(sweep, cell, error.message, error.hint, error.exit_code)
        else:
            report.note("".join(traceback.format_exception(error)))
            write_failure(sweep, cell, f"{type(error).__name__}: {error}", f"its traceback is in {sweep.log(cell)}", 1)
        return False
    return True


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[Reporter]:
    """Inside, everything that this process prints goes to the log, also from libraries in C."""
    before = [os.dup(number) for number in (1, 2)]
    with path.open("a", encoding="utf-8", errors="replace") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        try:
            yield LogReporter(log)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, handle in zip((1, 2), before, strict=True):
                os.dup2(handle, number)
                os.close(handle)


def _stop_with_parent() -> None:
    """Save and stop when standard input closes: the process that holds its other end has died."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> int:
    """The process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="alignzoo.sweeps.worker")
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("--no-plugins", action="store_true")
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--with-parent", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        with interruptible(), plugins_from(*asked.plugin, third_party=not asked.no_plugins):
            if asked.with_parent:
                _stop_with_parent()
            work(read_sweep(asked.sweep), trust_remote_code=asked.trust_remote_code)
    except (KeyboardInterrupt, Interrupted):
        return STOPPED
    except AlignzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
