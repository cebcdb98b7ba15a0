"""The page of one run."""

from __future__ import annotations

from typing import Any

from alignzoo.base.lock import is_locked
from alignzoo.comparison.figures import facts
from alignzoo.records import RunRecord
from alignzoo_report.blocks import Facts, Note, Page, Section
from alignzoo_report.curves import curves_of, curves_section
from alignzoo_report.data_section import data_section
from alignzoo_report.evaluation_section import evaluation_section
from alignzoo_report.examples_section import examples_section
from alignzoo_report.words import plain, plan_section, reproduce_section

HEADLINES = 4


def run_page(run: RunRecord) -> Page:
    """The page of a run, finished or not.

    Raises:
        DamagedError: a file of the run is not what was written.
    """
    sections = [
        plan_section(run),
        data_section(run),
        curves_section(run),
        examples_section(run),
        evaluation_section(run),
        environment_section(run),
        reproduce_section(run),
    ]
    if not run.finished:
        sections[0] = Section("plan", "Plan", [Note(_unfinished(run)), *sections[0].blocks])
    return Page(f"Run {run.name}", run.sentence, sections, _headlines(run))


def _unfinished(run: RunRecord) -> str:
    steps = curves_of(run).steps
    state = (
        "is still running"
        if is_locked(run.folder)
        else f"was stopped; resume it with: alignzoo run --resume {run.name}"
    )
    return f"This run has not finished: {steps} steps are logged, and it {state}."


def _headlines(run: RunRecord) -> list[tuple[str, str, str]]:
    result = run.result
    if result is None:
        return [("steps logged", f"{curves_of(run).steps:,}", ""), ("seed", str(run.seed), "")]
    found = [
        (facts(name).label, f"{value:.3f}", f"was {result.before[name]:.3f}" if name in result.before else "")
        for name, value in result.after.items()
        if facts(name).better is not None and "broken" not in name
    ]
    times = [("steps", f"{result.steps:,}", f"in {result.seconds:,.0f} s"), ("seed", str(run.seed), "")]
    return [*found[:HEADLINES], *times]


def environment_section(run: RunRecord, title: str = "Environment") -> Section:
    """Versions and hardware."""
    return Section("environment", title, [Facts(environment_facts(run))])


def environment_facts(run: RunRecord) -> list[tuple[str, str]]:
    """The environment as names and values."""
    found = run.environment
    rows: list[tuple[str, Any]] = [(name, found.get(name)) for name in ("alignzoo", "python", "platform", "device")]
    rows += [(name, version) for name, version in (found.get("versions") or {}).items()]
    rows += [(name, found.get(name)) for name in ("accelerators", "ranks", "threads", "cpus")]
    plugins = found.get("plugins") or []
    others = sorted(
        {f"{one['distribution']} {one['version']}" for one in plugins if one.get("distribution") != "alignzoo"}
    )
    rows.append(("other plugins", others))
    result = run.result
    if result is not None:
        rows += [("seconds", f"{result.seconds:,.1f}"), ("tokens", f"{result.tokens:,}")]
    return [(name, plain(value)) for name, value in rows if value not in (None, [], "")] or [("environment", "unknown")]
