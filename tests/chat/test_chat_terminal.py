"""The real process in a real terminal: two columns, Ctrl-C in a response, Ctrl-D at the prompt."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time


class Terminal:
    """A process in a terminal of 140 columns."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))

        def control() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "alignzoo", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=control,
            env=environment,
        )
        os.close(slave)
        self.output = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, text: str, seconds: float = 300) -> str:
        """What was shown up to and including ``text``; later waits begin behind it."""
        until = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < until, f"{text!r} was not shown: {self.output}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.output += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # the process has ended
                    assert text in self.output
        shown, _, self.output = self.output.partition(text)
        return shown + text


def test_responses_side_by_side_stopped_by_ctrl_c_and_left_by_ctrl_d() -> None:
    terminal = Terminal("chat", "sandbox", "--against", "sandbox", "--max-new-tokens", "200")
    assert "prompts: the tokenizer's chat template" in terminal.wait_for("you> ")
    terminal.type("How do I bake bread?\n")
    shown = terminal.wait_for("you> ")
    heading = next(line for line in shown.splitlines() if "sandbox (1)" in line)
    assert "│ sandbox (2)" in heading
    last = [line.rpartition("\r")[2] for line in shown.split("\r\n") if "bake" in line][-1]
    left, right = (side.replace("\x1b[K", "").strip() for side in last.split("│"))
    assert left == right != ""

    terminal.type("/temperature 50\n")  # random tokens: the response goes on until it is stopped
    terminal.wait_for("you> ")
    terminal.type("Go on\n")
    terminal.wait_for("│ sandbox (2)")
    terminal.wait_for("\r")
    terminal.type("\x03")
    terminal.wait_for(": stopped)")
    terminal.wait_for("you> ")
    terminal.type("/history\n")
    assert terminal.wait_for("assistant: ")
    terminal.wait_for("you> ")
    terminal.type("\x04")
    assert terminal.process.wait(timeout=120) == 0
