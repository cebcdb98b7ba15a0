"""Runs that stay in a step until they are let go, so that a test can kill or stop them in the middle."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

OBSERVER = '''
import os
import time
from pathlib import Path

from alignzoo.observers import RunObserver
from alignzoo.plugin import Extension, hookimpl


class Holding(RunObserver):
    """Waits after step ``$HOLD_AT`` (1-based) until there is a file FOLDER.go."""

    def on_start(self, folder, plan, steps):
        self.go = Path(f"{folder}.go")

    def on_step_end(self, step, metrics):
        last = time.monotonic() + 600  # a test that failed leaves nobody here
        while step == int(os.environ.get("HOLD_AT", 0)) and not self.go.exists() and time.monotonic() < last:
            time.sleep(0.01)


@hookimpl
def alignzoo_observers():
    return [Extension(kind="observer", name="holding", target=f"{__name__}:Holding", summary="Waits in a step.")]
'''


def holding(folder: Path) -> list[str]:
    """The words of a run for ``--plugin`` and ``--observe``; the plugin is a file in ``folder``."""
    plugin = folder / f"holding_{folder.name}.py"
    plugin.write_text(OBSERVER)
    return ["--plugin", str(plugin), "--observe", "holding"]


LINES = """
import os
import sys
import time
from alignzoo.cli.main import main
from alignzoo.evaluate.journal import Appender

write, written = Appender.write, []

def held(self, line):
    if len(written) == int(os.environ["HOLD_AT"]):
        time.sleep(600)
    write(self, line)
    written.append(line)

Appender.write = held
main()
"""
"""The text of a program that is ``alignzoo``, but never writes more than ``$HOLD_AT`` responses."""


def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 300) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: the process ended before, or so many seconds passed.
    """
    end = time.monotonic() + seconds
    while not condition():
        ended = process is not None and process.poll() is not None
        assert condition() or not ended, f"it ended with {process and process.returncode}"
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.01)


def until_lines(file: Path, count: int, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a file has so many lines."""
    until(lambda: file.is_file() and file.read_bytes().count(b"\n") >= count, process)


def until_step(folder: Path, step: int, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a run's metrics have so many steps."""
    until_lines(folder / "metrics.jsonl", step, process)


def until_asked(process: subprocess.Popen[str]) -> str:
    """Read a run's messages up to the one that says that it was asked to stop."""
    assert process.stderr is not None
    said = ""
    while "finishing this step and saving" not in said:
        line = process.stderr.readline()
        assert line, f"it ended: {said}"
        said += line
    return said


def go(folder: Path) -> None:
    """Let a run go on."""
    Path(f"{folder}.go").touch()
