"""The real process in a real terminal: started before the run, resized, ended by the run's end or by Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from watch_helpers import Run

SECONDS = 120


class Terminal:
    """``alignzoo watch`` in a terminal; :meth:`until` reads what it shows."""

    def __init__(self, folder: Path, lines: int, columns: int) -> None:
        self.master, slave = pty.openpty()
        self.resize(lines, columns)

        def control() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        words = [sys.executable, "-m", "alignzoo", "watch", str(folder), "--every", "0.1"]
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, preexec_fn=control, env=environment
        )
        os.close(slave)
        self.shown = ""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, pattern: str) -> None:
        end = time.monotonic() + SECONDS
        while not re.search(pattern, self.shown, re.DOTALL):
            assert time.monotonic() < end, f"{pattern!r} was not shown: {self.shown[-3000:]}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # the process has ended
                    assert re.search(pattern, self.shown, re.DOTALL), self.shown[-3000:]

    def until_fits(self, columns: int) -> None:
        """Read until a whole frame has no line wider than ``columns``; frames drawn before a resize may come first."""
        end = time.monotonic() + SECONDS
        while True:
            *frames, self.shown = self.shown.split("\x1b[H")  # each is drawn from the top left; the last may go on
            for frame in frames[1:]:
                lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).splitlines()
                if "running, step" in frame and max(map(len, lines)) <= columns:
                    return
            assert time.monotonic() < end, f"no frame fits {columns} columns: {frames[-1:]}"
            self.shown = "\x1b[H" + self.shown
            self.until(r"\x1b\[H.*\x1b\[H")


def test_watching_from_before_the_run_to_its_end_through_a_resize(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    terminal = Terminal(run.folder, 30, 100)
    terminal.until("waiting for the run to start")
    run.begin()
    for number in (1, 2, 3):
        run.step(number)
    terminal.until("running, step 3 of 10.*rewards/margins")
    terminal.resize(8, 40)
    terminal.shown = ""
    terminal.until_fits(40)
    run.finish()
    terminal.until(r"\x1b\[\?1049l.*finished, step 3 of 10")  # the last frame stays on the usual screen
    assert terminal.process.wait(SECONDS) == 0


def test_ctrl_c_ends_the_view_and_leaves_the_run_alone(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.begin()
    run.step(1)
    terminal = Terminal(run.folder, 30, 100)
    terminal.until("running, step 1 of 10")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until("the run is not affected")
    assert terminal.process.wait(SECONDS) == 0
    run.end()
