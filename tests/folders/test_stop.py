"""What a request to stop does, whichever signal it comes by."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignzoo.base import stop
from alignzoo.base.stop import interruptible, stop_requests

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Afterwards the handlers are those of before."""
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    assert [signal.getsignal(number) for number in NUMBERS] == before


def ask(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.001)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_interrupts(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        ask(number)


def test_the_first_asks_to_finish_a_later_one_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(stop, "_SAME_REQUEST", 60.0)  # however slow the machine is
    with stop_requests(lambda: notes.append("saving")) as asked:
        assert not asked.is_set()
        ask(signal.SIGTERM)
        ask(signal.SIGINT)  # the same request, passed on by a launcher
        assert asked.is_set()
        assert notes == ["saving"]
        monkeypatch.setattr(stop, "_SAME_REQUEST", 0.0)
        ask(signal.SIGHUP)  # a shell sends it after the terminal has
        with pytest.raises(KeyboardInterrupt):
            ask(signal.SIGINT)
    assert notes == ["saving"]


def test_a_line_that_cannot_be_printed_just_then_does_no_harm() -> None:
    def reentrant() -> None:
        raise RuntimeError("reentrant call inside a buffered writer")

    with stop_requests(reentrant) as asked:
        ask(signal.SIGTERM)
    assert asked.is_set()


def test_what_a_library_has_set_meanwhile_does_not_stay() -> None:
    with interruptible():
        signal.signal(signal.SIGTERM, lambda *_: None)


def test_under_nohup_a_lost_terminal_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            ask(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_worker_ends_by_the_signal_as_ever() -> None:
    with interruptible():
        worker = os.fork()
        if worker == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(300)
            finally:
                os._exit(0)
        _, status = os.waitpid(worker, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM


HANGING_UP = """
import sys, time
from pathlib import Path
from alignzoo.base.stop import stop_requests
with stop_requests(lambda: print("finishing", file=sys.stderr)) as asked:
    print("ready", flush=True)
    asked.wait(300)
print("saved", file=sys.stderr, flush=True)
Path(sys.argv[1]).write_text(str(asked.is_set()))
"""


def test_when_the_terminal_is_closed_there_is_time_to_save(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", HANGING_UP, str(tmp_path / "saved")])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "saved").read_text() == "True"


ENDING = """
import atexit, sys, time
from alignzoo.cli.main import main
atexit.register(lambda: (print("ending", flush=True), time.sleep(300)))
sys.argv[1:] = ["--version"]
main()
"""

DONE = """
import os, sys
from alignzoo.cli.main import main
sys.argv[1:] = ["--version"]
sys.exit = lambda code: os.kill(os.getpid(), 15)
main()
"""


def test_a_stop_while_the_process_ends_does_not_change_its_outcome() -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline() != "ending\n":
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()


def test_nor_does_one_before_it_begins_to_end() -> None:
    ended = subprocess.run([sys.executable, "-c", DONE], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("alignzoo ")


LATE = """
import os, sys
from alignzoo.cli.main import main

class Late:
    def __del__(self, stop=os.kill, process=os.getpid()):
        stop(process, 2)

sys.modules["late"] = Late()
sys.argv[1:] = ["--version"]
main()
"""

REPORTING = """
import os, sys
from alignzoo.cli import failures
from alignzoo.cli.main import main

def write(stream, text, write=failures.write):
    os.kill(os.getpid(), 2)
    write(stream, text)

failures.write = write
sys.argv[1:] = ["nonsense"]
main()
"""

AGAIN = """
import os, sys
from alignzoo.cli import main
from alignzoo.errors import Interrupted

def run(**_words):
    try:
        raise Interrupted("stopped after step 3; state saved", hint="resume with: it")
    finally:
        os.kill(os.getpid(), 2)  # while it cleans up
        sum(range(100))

main.cli.main = run
sys.argv[1:] = ["--version"]
main.main()
"""

SWALLOWED = """
import os, sys
from alignzoo.cli import main

def run(**_words):
    try:
        os.kill(os.getpid(), 2)
        sum(range(100))
    except KeyboardInterrupt:
        raise ImportError("cannot load module more than once per process")

main.cli.main = run
sys.argv[1:] = ["--version"]
main.main()
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        (LATE, 0, ""),
        (REPORTING, 2, "error: unknown command 'nonsense'\n"),
        (AGAIN, 130, "error: stopped after step 3; state saved\n  resume with: it\n"),
        (SWALLOWED, 130, "error: interrupted\n"),
    ],
    ids=["late", "reporting", "again", "swallowed"],
)
def test_when_the_work_is_over_a_request_changes_nothing(code: str, exit_code: int, said: str) -> None:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == exit_code, ended.stderr
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("error") == bool(said)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("worker", [False, True])
def test_ctrl_c_while_modules_are_imported(worker: bool, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, time\nos.kill(os.getpid(), 2)\ntime.sleep(300)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), **({"ALIGNZOO_WORLD": "2"} if worker else {})}
    words = [sys.executable, "-m", "alignzoo", "--version"]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == ("" if worker else "error: interrupted\n")
