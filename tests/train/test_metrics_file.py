"""What a resumed run makes of the ``metrics.jsonl`` that it finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from heard import Heard

from alignzoo.train.metrics import MetricsFile, metrics_digest

LINES = [json.dumps({"step": step, "loss": 0.5, "tokens": 9}) for step in range(1, 13)]


def resumed(folder: Path, lines: list[str] | bytes, *, done: int = 10) -> tuple[list[str], list[str]]:
    """The lines that stay, and the warnings."""
    whole = "".join(f"{line}\n" for line in LINES[:done])
    path = folder / "metrics.jsonl"
    path.write_text(whole)
    digest = metrics_digest(folder)
    path.write_bytes(lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode())
    heard = Heard()
    MetricsFile(folder, heard, done=done, digest=digest)
    return path.read_text().splitlines(), heard.warnings


def test_lines_of_later_steps_and_half_a_last_line_are_dropped_without_a_word(tmp_path: Path) -> None:
    assert resumed(tmp_path, [*LINES, '{"step": 13, "lo']) == (LINES[:10], [])


DAMAGED = {
    "null": "null",
    "a number": "7",
    "a list": "[]",
    "cut": "{",
    "empty": "{}",
    "a step that is text": '{"step": "4"}',
    "a step that is no integer": '{"step": 4.0}',
    "a step that is a truth": '{"step": true}',
    "a step below 1": '{"step": -4}',
    "a figure that is text": '{"step": 4, "loss": "low"}',
    "a figure that is null": '{"step": 4, "loss": null}',
    "a figure that is a truth": '{"step": 4, "loss": true}',
    "too deep": "[" * 100_000,
    "too long a number": '{"step": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_line_that_is_no_step_with_its_figures_is_missed(damaged: str, tmp_path: Path) -> None:
    lines, warnings = resumed(tmp_path, [*LINES[:3], damaged, *LINES[4:10]])
    assert lines == LINES[:3] + LINES[4:10]
    [warning] = warnings
    assert "no figures for step 4 (damaged lines: 1)" in warning


def test_bytes_that_are_no_text_are_missed(tmp_path: Path) -> None:
    whole = "".join(f"{line}\n" for line in LINES[:10]).encode()
    lines, [warning] = resumed(tmp_path, whole.replace(b'"loss": 0.5', b'"loss": \xff\x00', 1))
    assert lines == LINES[1:10]
    assert "no figures for step 1 " in warning


def test_lost_lines_are_named_by_their_steps(tmp_path: Path) -> None:
    assert "no figures for step 2-4, 8;" in resumed(tmp_path, [LINES[0], *LINES[4:7], *LINES[8:]])[1][0]
    assert "no figures for step 1-10;" in resumed(tmp_path, [])[1][0]


def test_doubled_and_misplaced_lines_are_put_right(tmp_path: Path) -> None:
    lines, [warning] = resumed(tmp_path, [*LINES[:5], *LINES[2:10]])
    assert lines == LINES[:10]
    assert "more than one line for step 3-5" in warning
    assert resumed(tmp_path, LINES[9::-1]) == (LINES[:10], [])


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    changed = LINES[3].replace("0.5", "0.4")
    lines, [warning] = resumed(tmp_path, [*LINES[:3], changed, *LINES[4:]])
    assert lines[3] == changed
    assert "the figures of steps 1 to 10 have been changed" in warning
