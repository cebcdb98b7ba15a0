"""How things look: plain lines where there is no terminal, rich where there is one."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import AddPlugin, Az, card_source, plugin_source

from alignzoo.cli import main as cli_main
from alignzoo.cli.console import plain_table, print_json, print_lines, print_table
from alignzoo.cli.failures import report_failure
from alignzoo.cli.reporter import ConsoleReporter, duration, speed
from alignzoo.errors import DataError, Interrupted, UsageError
from alignzoo.plugin import list_methods


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_progress_is_a_line_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    with ConsoleReporter(stream, clock).progress(50, "training", unit="step", done=10) as bar:
        for step in range(40):
            clock.now += 0.5
            bar.advance(loss=f"{1 / (step + 1):.2f}")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "training 11/50 (22%), 2.0 step/s, 0:20 left, loss 1.00",
        "training 31/50 (62%), 2.0 step/s, 0:10 left, loss 0.05",
        "training 50/50 (100%), 2.0 step/s, took 0:20, loss 0.03",
    ]


def test_plain_reports_have_neither_colour_nor_boxes() -> None:
    stream = io.StringIO()
    reporter = ConsoleReporter(stream)
    reporter.note("[bold]as it is[/bold]")
    reporter.warn("careful")
    reporter.table("before and after", ["split", "before", "after"], [["attack", "1.00", "0.1"], ["b", "0", "0.05"]])
    assert stream.getvalue().splitlines() == [
        "[bold]as it is[/bold]",
        "warning: careful",
        "before and after",
        "  split   before  after",
        "  attack    1.00    0.1",
        "  b            0   0.05",
    ]


CONTROLS = "a\x1b[31mb\x07c\rd\x9b2Je\x00f\u202eg\x7fh"
ESCAPED = r"a\x1b[31mb\x07c\rd\x9b2Je\x00f\u202eg\x7fh"


def test_control_characters_are_escaped_on_all_ways_out(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    reporter = ConsoleReporter(stream)
    reporter.note(CONTROLS)
    reporter.warn(CONTROLS)
    reporter.table(CONTROLS, ["a", CONTROLS], [[CONTROLS, "1"]])
    with reporter.progress(1, CONTROLS) as bar:
        bar.advance(loss=CONTROLS)
    assert stream.getvalue().count(ESCAPED) == 7
    print_lines(CONTROLS, "tabs\tand\nline ends stay")
    print_table([CONTROLS, "b"], [[CONTROLS, "1"]], CONTROLS)
    report_failure(UsageError(CONTROLS), as_json=False, debug=False)
    out, err = capsys.readouterr()
    assert (out.count(ESCAPED), err.count(ESCAPED)) == (4, 1)
    assert "tabs\tand\nline ends stay\n" in out
    for text in (stream.getvalue(), out, err):
        assert not set(text) & set("\x1b\x07\r\x9b\x00\u202e\x7f")
    assert out.splitlines()[-1].rindex("1") == out.splitlines()[-2].rindex("b")
    print_json({"a": CONTROLS})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": CONTROLS}
    assert not set(out) & set("\x1b\x9b\u202e\x7f")


def test_help_escapes_what_plugins_say_of_themselves(az_here: Az, add_plugin: AddPlugin, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        plugin_source(card_source("loss", "loud")).replace("how wide", r"how \x1b[31mwide")
        + "@hookimpl\ndef alignzoo_commands():\n    from alignzoo.plugin import Extension\n"
        + '    return [Extension(kind="command", name="shout", target="a:b", summary="\\x1b]0;title\\x07")]\n'
    )
    for words in (["--help"], [], ["run", "--loss", "loud", "--help"], ["ls"], ["info", "loud"]):
        ended = az_here(*words, "--plugin", str(tmp_path / "loud.py"))
        assert ended.returncode == 0
        assert "\x1b" not in ended.stdout
    assert r"\x1b[31mwide" in ended.stdout


def test_figures_of_throughput_and_time() -> None:
    assert speed(30, 10, "step") == "3.0 step/s"
    assert speed(5, 20, "step") == "4.0 s/step"
    assert speed(0, 3, "step") == "- step/s"
    assert duration(59.6) == "1:00"
    assert duration(3725) == "1:02:05"
    assert plain_table(["", ""], [["auc", "0.9"], ["accuracy", "1"]]) == ["auc       0.9", "accuracy  1"]
    assert plain_table(["", ""], []) == []


def in_terminal(command: list[str], columns: int = 100) -> str:
    """What a program shows in a terminal."""
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=env)
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(parent, 65536):
            shown += chunk
    except OSError:  # how Linux says that the other end has gone
        pass
    os.close(parent)
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_gets_rich_tables_and_bars() -> None:
    assert "───" in in_terminal([sys.executable, "-m", "alignzoo", "recipes", "list"])
    nested = r"""
from alignzoo.cli.reporter import ConsoleReporter
reporter = ConsoleReporter()
with reporter.progress(2, "training", unit="step") as bar:
    bar.advance(loss="[0.5]")
    with reporter.progress(1, "evaluating") as inner:
        inner.advance()
    reporter.note("half [way]")
    reporter.table("title", ["a\x1b[41m", "b"], [["x\x1b[42m", "[1]"]])
    reporter.warn("\x1b[43m")
    bar.advance(loss="0.25")
with reporter.progress(1, "again") as bar:
    bar.advance()
"""
    shown = in_terminal([sys.executable, "-c", nested])
    for part in ("training", "2/2", "evaluating", "half [way]", "[1]", "loss 0.25", "again"):
        assert part in shown
    for colour in ("[41m", "[42m", "[43m"):
        assert rf"\x1b{colour}" in shown
        assert f"\x1b{colour}" not in shown


def lines_in_terminal(command: list[str], columns: int) -> list[str]:
    """The lines that a terminal would show, one after the other, without what moves the cursor or colours."""
    return [
        re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip()
        for line in re.split(r"[\r\n]+", in_terminal(command, columns))
    ]


TRAINING = """
from alignzoo.cli.reporter import ConsoleReporter
with ConsoleReporter().progress(12000, "training", unit="step", done=4567) as bar:
    for _ in range(3):
        bar.advance(loss="0.2510", margin="+3.9415", tokens_per_s="5825")
"""


@pytest.mark.parametrize(("columns", "shown"), [(140, True), (80, False), (60, False)])
def test_a_narrow_terminal_keeps_step_time_left_and_loss(columns: int, shown: bool) -> None:
    lines = lines_in_terminal([sys.executable, "-c", TRAINING], columns)
    assert max(map(len, lines)) <= columns
    last = [line for line in lines if line.startswith("training")][-1]
    assert "4570/12000" in last
    assert re.search(r"\d+:\d\d", last)
    assert "loss 0.2510" in last
    assert ("tokens_per_s 5825" in last) == ("━" in last) == shown


def test_ls_has_one_line_per_method_in_a_terminal() -> None:
    lines = [line for line in lines_in_terminal([sys.executable, "-m", "alignzoo", "ls"], 80) if line]
    rows = [line for line in lines if line.startswith("   ")]
    assert sorted(line.split()[0] for line in rows) == sorted(method.name for method in list_methods())
    assert max(map(len, lines)) <= 80
    assert max(map(len, rows)) > 70, "summaries take the room that there is"


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    line = f"{sys.executable} -m alignzoo ls --json 2>{errors} | true; echo ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True).stdout == "0\n"
    assert errors.read_text() == ""


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (DataError("rows.jsonl:3: no 'chosen'", hint="add it"), 1, ["error: rows.jsonl:3: no 'chosen'", "  add it"]),
        (Interrupted("stopped at step 3"), 130, ["error: stopped at step 3"]),
        (KeyboardInterrupt(), 130, ["", "error: interrupted"]),
        (EOFError("cut"), 1, ["", "internal error: EOFError: cut", "  run again with --debug for the traceback"]),
        (
            ZeroDivisionError("by zero"),
            1,
            ["internal error: ZeroDivisionError: by zero", "  run again with --debug for the traceback"],
        ),
        (
            BrokenPipeError("worker"),
            1,
            [
                "internal error: RuntimeError: a pipe inside the command broke",
                "  run again with --debug for the traceback",
            ],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_each_error_looks_like(
    error: BaseException,
    code: int,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from alignzoo.cli import ls

    def fail() -> None:
        raise error

    monkeypatch.setattr(ls, "registry", fail)
    with pytest.raises(SystemExit) as end:
        cli_main.main(["ls"])
    assert end.value.code == code
    assert capsys.readouterr().err.splitlines() == lines
