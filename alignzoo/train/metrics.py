"""``metrics.jsonl``: a run's figures, one line per step."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignzoo.base.files import append_text, write_text
from alignzoo.base.stored import bytes_digest, file_digest
from alignzoo.report import Reporter

METRICS_FILE = "metrics.jsonl"


class MetricsFile:
    """``metrics.jsonl``: one object per optimizer step, flushed to disk at the end of the step.

    Args:
        report: gets warnings about missing, duplicate or corrupt lines.
        done: the steps taken so far, whose lines are kept.
        digest: of those lines, if known.
    """

    def __init__(self, folder: Path, report: Reporter, *, done: int = 0, digest: str | None = None) -> None:
        self.path = folder / METRICS_FILE
        self._repair(done, digest, report)

    def append(self, line: dict[str, Any]) -> None:
        append_text(self.path, json.dumps(line) + "\n")

    def _repair(self, done: int, digest: str | None, report: Reporter) -> None:
        """Drop the lines of steps that a resumed run repeats, and invalid lines."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        lines: dict[int, bytes] = {}
        doubled: list[int] = []
        damaged = 0
        for text in filter(bytes.strip, content.split(b"\n")):
            step = _step_of(text)
            if step is None:
                damaged += 1
            elif step in lines:
                doubled.append(step)
            elif step <= done:
                lines[step] = text
        missing = [step for step in range(1, done + 1) if step not in lines]
        # A killed process leaves half a line of a step that is repeated: nothing is lost.
        if missing:
            why = f" (damaged lines: {damaged})" if damaged else ""
            report.warn(f"{self.path} has no figures for step {_spans(missing)}{why}; they are lost")
        if doubled:
            report.warn(f"{self.path} had more than one line for step {_spans(doubled)}; keeping the first")
        whole = b"".join(lines[step] + b"\n" for step in sorted(lines))
        if digest is not None and not missing and bytes_digest(whole) != digest:
            report.warn(f"{self.path}: the figures of steps 1 to {done} have been changed")
        if whole != content:
            write_text(self.path, whole.decode())


def metrics_digest(folder: Path) -> str | None:
    """The digest of all lines of a run so far; None if there is none."""
    path = folder / METRICS_FILE
    return file_digest(path) if path.is_file() else None


def _step_of(text: bytes) -> int | None:
    """The step of a line of metrics; None if the line is invalid."""
    try:
        line = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or any(type(value) not in (int, float) for value in line.values()):
        return None
    step = line.get("step")
    return step if isinstance(step, int) and step > 0 else None


def _spans(numbers: Iterable[int]) -> str:
    """Numbers for a message: ``3-5, 9``."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    shown = ["-".join(map(str, span)) for span in spans[:10]]
    return ", ".join(shown) + (", ..." if len(spans) > 10 else "")
