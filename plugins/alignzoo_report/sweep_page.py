"""The page of a sweep."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo.comparison.figures import facts
from alignzoo.comparison.groups import groups_of
from alignzoo.records import Cell, RunRecord, SweepRecord
from alignzoo_report.blocks import Code, Details, Facts, Note, Page, Section, Table, Text
from alignzoo_report.charts import shown
from alignzoo_report.comparison_section import compared, comparison_section, cost_section, pareto_section
from alignzoo_report.curves import displacement
from alignzoo_report.run_page import environment_section
from alignzoo_report.sweep_curves import curves_of_groups
from alignzoo_report.words import command_of, flag, plain, summary

METHOD_AXES = ("loss", "robust", "geometry", "aggregation", "reward", "selector")


def sweep_page(sweep: SweepRecord) -> Page:
    """The page of a sweep, finished or not.

    Raises:
        DamagedError: a file of a run is not what was written.
    """
    finished = any(sweep.status(cell) == "finished" for cell in sweep.cells)
    groups = groups_of([sweep.folder]) if finished else []
    runs = {run.folder.name: run for group in groups for run in group.runs.values()}
    comparison, warnings = compared(groups)
    sections = [_plan(sweep, warnings if comparison is None else [])]
    if comparison is not None:
        sections.append(comparison_section(comparison, warnings))
        sections += [section for section in (pareto_section(comparison),) if section is not None]
        sections.append(cost_section(comparison))
    sections += [curves_of_groups(groups)] if groups else []
    sections.append(_cells(sweep, runs))
    if runs:
        sections.append(_environment(list(runs.values())))
    sections.append(_reproduce(sweep))
    counts = Counter(map(sweep.status, sweep.cells))
    figures = [
        ("runs finished", f"{counts['finished']} of {len(sweep.cells)}", ""),
        *((f"runs {status}", str(counts[status]), "") for status in ("failed", "running", "stopped") if counts[status]),
        ("groups", str(len(groups)), ""),
        ("seeds", str(len(sweep.seeds)), ""),
    ]
    return Page(f"Sweep {sweep.folder.name}", _asked(sweep), sections, figures)


def _asked(sweep: SweepRecord) -> str:
    axes = [f"{word}: {', '.join(map(_value, values))}" for word, values in sweep.axes.items()]
    return "; ".join(axes) or "one point, several seeds"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else plain(value)


def _plan(sweep: SweepRecord, warnings: Sequence[str]) -> Section:
    blocks: list[Any] = []
    counts = Counter(map(sweep.status, sweep.cells))
    left = len(sweep.cells) - counts["finished"]
    if left:
        parts = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "finished")
        blocks.append(Note(f"{left} of {len(sweep.cells)} runs have no result ({parts}); figures leave them out."))
    blocks += [Note(text) for text in warnings]
    axes = [(word, ", ".join(map(_value, values))) for word, values in sweep.axes.items()]
    blocks.append(Facts([*axes, ("seeds", ", ".join(map(str, sweep.seeds))), ("runs", str(len(sweep.cells)))]))
    does = [
        (word, _value(value), summary(word, value))
        for word in METHOD_AXES
        for value in sweep.axes.get(word, ())
        if isinstance(value, str) and value != "none"
    ]
    if does:
        blocks.append(Table("Methods that are compared", ("kind", "name", "what it does"), does))
    shared = {word: (word, plain(value), origin) for origin, word, value in _shared(sweep) if word not in sweep.axes}
    if shared:
        blocks.append(Table("Settings of all runs", ("setting", "value", "set by"), [*shared.values()]))
    return Section("plan", "Plan", blocks)


def _shared(sweep: SweepRecord) -> list[tuple[str, str, Any]]:
    """Words of all runs by origin, as ``(origin, word, value)``."""
    found = []
    for origin, words in sweep.recipe.items():
        if isinstance(words, Mapping):
            found += [(str(origin), str(word), value) for word, value in words.items()]
        else:
            found.append(("", str(origin), words))
    return found


def _cells(sweep: SweepRecord, runs: Mapping[str, RunRecord]) -> Section:
    """Failures first, then every run in short."""
    blocks: list[Any] = []
    failed = [(cell, failure) for cell in sweep.cells if (failure := sweep.failure(cell)) is not None]
    if failed:
        rows = [(cell.label, str(cell.seed), failure.error, failure.hint or "–") for cell, failure in failed]
        blocks.append(Table("Runs that failed", ("run", "seed", "error", "hint"), rows))
        blocks.append(Text("To run them again: alignzoo sweep with --retry-failed and the same words."))
    for label in dict.fromkeys(cell.label for cell in sweep.cells):
        cells = [cell for cell in sweep.cells if cell.label == label]
        done = [cell for cell in cells if cell.name in runs]
        state = f"{len(done)} of {len(cells)} finished"
        parts: list[Any] = [_seeds(label, sweep, cells, runs)]
        parts += [Note(f"Seed {cell.seed}: {text}") for cell in done if (text := _displaced(runs[cell.name]))]
        if done:
            parts.append(Code(command_of(runs[done[0].name]), f"Command that repeats {label}, seed {done[0].seed}"))
        blocks.append(Details(f"{label}: {state}", parts, failed=any(sweep.failure(cell) for cell in cells)))
    return Section("runs", "Runs", blocks)


def _displaced(run: RunRecord) -> str | None:
    result = run.result
    return displacement(result.before, result.after) if result else None


def _seeds(label: str, sweep: SweepRecord, cells: Sequence[Cell], runs: Mapping[str, RunRecord]) -> Table:
    """Seeds in rows, figures in columns."""
    results = {cell.name: runs[cell.name].result for cell in cells if cell.name in runs}
    names = list(
        dict.fromkeys(
            name for result in results.values() if result for name in result.after if facts(name).better is not None
        )
    )
    rows = []
    for cell in cells:
        result = results.get(cell.name)
        if result is None:
            rows.append([str(cell.seed), sweep.status(cell), *["–"] * (len(names) + 2)])
            continue
        figures = [shown(result.after.get(name)) for name in names]
        rows.append([str(cell.seed), "finished", f"{result.seconds:.1f}", *figures, result.weights[:12]])
    columns = ("seed", "state", "seconds", *(facts(name).label for name in names), "weights")
    return Table(label, columns, rows, figures=range(2, len(columns) - 1))


def _environment(runs: Sequence[RunRecord]) -> Section:
    """That of the first run, and in what others differ."""
    first = runs[0].environment
    apart = sorted(
        {word for run in runs for word in first if word != "plugins" and run.environment.get(word) != first[word]}
    )
    section = environment_section(runs[0])
    if not apart:
        return section
    note = Note(f"Runs differ in {', '.join(apart)}; these are the values of {runs[0].name}.", "info")
    return Section(section.name, section.title, [note, *section.blocks])


def _reproduce(sweep: SweepRecord) -> Section:
    words = ["alignzoo sweep"]
    for _, word, value in _shared(sweep):
        if word == "recipe":
            words.append(f"--recipe {shlex.quote(plain(value))}")
        elif word not in sweep.axes and word not in ("out", "seed"):
            words += flag(word, value)
    for word, values in sweep.axes.items():
        words.append(f"--grid {shlex.quote(f'{word}=' + ','.join(map(_word, values)))}")
    seeds = sweep.seeds
    counted = str(len(seeds)) if list(seeds) == list(range(len(seeds))) else ",".join(map(str, seeds))
    words.append(f"--seeds {counted}")
    text = (
        "Each run can be repeated alone with the command under Runs. The same seed, versions and kind of hardware give "
        "the same weights, bit for bit."
    )
    return Section("reproduce", "Reproduce", [Code(" ".join(words), "Command that repeats the sweep"), Text(text)])


def _word(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "+".join(map(_word, value)) or "none"
    return plain(value)
