"""The state of a sweep, in words and as data."""

from __future__ import annotations

from collections import Counter
from typing import Any

from alignzoo.cli.console import print_lines
from alignzoo.records.sweep import SweepRecord

_LISTED = 10
"""Failures that are listed in full; all of them are in the folder and in ``--json``."""


def report(sweep: SweepRecord, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """A sweep as plain data, with the command that tries failed runs again."""
    from alignzoo.sweeps.crew import resume_command

    cells = []
    for cell in sweep.cells:
        failure = sweep.failure(cell)
        facts = {"name": cell.name, "values": dict(cell.values), "seed": cell.seed, "status": sweep.status(cell)}
        facts |= {"folder": str(sweep.run_folder(cell)), "label": cell.label}
        cells.append(facts | ({"error": vars(failure)} if failure is not None else {}))
    counts = Counter(cell["status"] for cell in cells)
    return {
        "folder": str(sweep.folder),
        "axes": dict(sweep.axes),
        "seeds": list(sweep.seeds),
        "runs": len(cells),
        "finished": counts["finished"],
        "failed": counts["failed"],
        "skipped": dict(sweep.skipped),
        "cells": cells,
        "retry": f"{resume_command(sweep, trust_remote_code=trust_remote_code)} --retry-failed",
    }


def show(facts: dict[str, Any]) -> None:
    """What finished and what failed, with why."""
    print_lines(f"{facts['finished']} of {facts['runs']} runs finished")
    if facts["skipped"]:
        print_lines(f"{len(facts['skipped'])} combinations were skipped: they cannot run")
    failed = [cell for cell in facts["cells"] if cell["status"] == "failed"]
    for cell in failed[:_LISTED]:
        hint = f"\n    {cell['error']['hint']}" if cell["error"]["hint"] else ""
        print_lines(f"failed: {cell['label']} seed {cell['seed']}: {cell['error']['error']}{hint}")
    if len(failed) > _LISTED:
        print_lines(f"and {len(failed) - _LISTED} more")
    if failed:
        print_lines(f"try these again with: {facts['retry']}")
