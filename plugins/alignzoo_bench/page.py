"""``docs/bench.md``: what a bench found, from its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignzoo.base.files import write_text
from alignzoo.comparison.compare import compare
from alignzoo.comparison.groups import Group
from alignzoo.comparison.results import Comparison, CostRow, FigureRow, FigureTable, OverSeeds
from alignzoo.comparison.statistics import ALPHA
from alignzoo.errors import UsageError
from alignzoo_bench.folder import DEFAULT, TUNED, Bench, groups_of, read_bench, searches_of, sweeps_of
from alignzoo_bench.methods import BASE
from alignzoo_bench.ranks import Rank, not_worse_than_best, rank_intervals

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_HEADINGS = {DEFAULT: "At the cards' defaults", TUNED: "At tuned points"}


def write_page(folder: Path, page: Path) -> None:
    """Replace the part of a page between its markers by what a bench found.

    Raises:
        UsageError: the page has no markers, or no run has finished.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# Bench\n\n{BEGIN}\n{END}\n"
    if BEGIN not in text or END not in text:
        raise UsageError(f"{page} has no place for the figures", hint=f"add two lines: {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(page, f"{before}{BEGIN}\n\n{page_text(folder)}\n{END}{after}")


def page_text(folder: Path) -> str:
    """What a bench found, in Markdown."""
    bench = read_bench(folder)
    parts = {part: groups_of(folder, bench, part, bench.entries) for part in (DEFAULT, TUNED)}
    if not parts[DEFAULT]:
        raise UsageError(f"no run of {folder} has finished", hint=f"run it: alignzoo bench --out {folder}")
    lines = list(_what_was_run(folder, bench, parts[DEFAULT]))
    for part, groups in parts.items():
        if groups:
            groups, base = _with_baseline(groups, parts[DEFAULT])
            compared = compare(groups, baseline=base, figures=_figures(groups), anyway=True)
            lines += ["", f"## {_HEADINGS[part]}"]
            lines += list(_tuning(folder, bench)) if part == TUNED else []
            lines += list(_results(compared, base))
    return "\n".join(lines) + "\n"


def _with_baseline(groups: list[Group], defaults: Sequence[Group]) -> tuple[list[Group], str]:
    """The groups and the label of the baseline: DPO's own, at its defaults if it is not tuned (yet)."""
    if any(group.label == BASE for group in groups):
        return groups, BASE
    label = f"{BASE} (defaults)"
    return [*(replace(group, label=label) for group in defaults if group.label == BASE), *groups], label


def _figures(groups: Sequence[Group]) -> list[str]:
    """The figures from generated answers: held-out pairs may share goals with the rows that points were tuned on."""
    results = [run.result for group in groups for run in group.runs.values() if run.result is not None]
    return list(dict.fromkeys(name for result in results for name in result.after if not name.startswith("eval/")))


def _what_was_run(folder: Path, bench: Bench, groups: Sequence[Group]) -> Iterator[str]:
    runs = [run for group in groups for run in group.runs.values()]
    first = runs[0]
    sweeps = list(sweeps_of(folder, bench))
    finished = [run for sweep in sweeps for _, run in sweep.finished()]
    failed = [(cell.label, failure) for sweep in sweeps for cell in sweep.cells if (failure := sweep.failure(cell))]
    hours = sum(run.result.seconds for run in finished if run.result) / 3600
    values, environment = first.values, first.environment
    steps = first.result.steps if first.result else 0
    kinds: dict[str, list[str]] = {}
    for entry in bench.entries:
        kinds.setdefault(entry.kind, []).append(entry.label)
    yield f"Recipe `{bench.world}`{_settings(bench.settings)}: {steps} steps of {values['batch-size']} pairs, learning"
    yield f"rate {values['lr']:g}; seeds {_listed(bench.seeds)}; label noise {_listed(bench.noise)}."
    yield f"{len(finished)} runs took {hours:.1f} hours on {_machine(environment)}, with alignzoo {bench.alignzoo}"
    yield f"{f' ({bench.commit})' if bench.commit else ''}, torch {environment.get('versions', {}).get('torch')}."
    yield ""
    yield f"- Losses: {_listed(kinds.get('loss', []))}."
    yield f"- Wrappers, on `{BASE}`: {_listed(kinds.get('robust', ['none']))}."
    yield f"- Controllers, on `{BASE}`: {_listed(kinds.get('geometry', ['none']))}."
    for label, reason in bench.unsuitable.items():
        yield f"- Not run: `{label}`: {reason}."
    for label, failure in failed:
        yield f"- Failed: {label}: {failure.error.splitlines()[0]}."


def _tuning(folder: Path, bench: Bench) -> Iterator[str]:
    yield ""
    yield f"Each method had {bench.trials} trials of a {bench.sampler} search for each noise rate, the first with its"
    yield "defaults, over the ranges of its card and the learning rate; by the mean of"
    yield f"{_listed([f'`{name}`' for name in bench.objective])}, with one seed and on prompts that no result uses."
    yield ""
    yield "| method | label noise | best point |"
    yield "| --- | --- | --- |"
    for entry, noise, search in searches_of(folder, bench):
        best = search.best
        if best is not None:
            point = (
                "the defaults" if best.number == 0 else ", ".join(f"`{w}` {_short(v)}" for w, v in best.values.items())
            )
            yield f"| {entry.label} | {noise:g} | {point} |"


def _results(compared: Comparison, base: str) -> Iterator[str]:
    for warning in compared.warnings:
        yield f"\n- {warning}"
    tables: dict[str, list[FigureTable]] = {}
    for table in compared.tables:
        tables.setdefault(table.facts.name, []).append(table)
    for some in tables.values():
        if any(row.figure and any(row.figure.values.values()) for table in some for row in table.rows):
            yield from _figure(some)
        else:
            yield f"\n{some[0].facts.label.capitalize()}: 0 in all runs."
    yield from _cost(compared, base)


def _figure(tables: Sequence[FigureTable]) -> Iterator[str]:
    """One table: a row per method, three columns per noise rate."""
    facts = tables[0].facts
    yield f"\n### {facts.label.capitalize()} (`{facts.name}`, {facts.better} is better)\n"
    ranks = {table.block: _ranks(table) for table in tables}
    for table in tables:
        best = not_worse_than_best(ranks[table.block])
        if len(best) < len(ranks[table.block]):
            yield f"- {table.block}: no method is significantly better than {_listed(best)}."
        else:
            yield f"- {table.block}: no method is significantly better than another."
    yield ""
    yield "| method | " + " | ".join(f"{table.block} | − {BASE} | rank" for table in tables) + " |"
    yield "| --- |" + " --- | --- | --- |" * len(tables)
    for label in dict.fromkeys(row.group for table in tables for row in table.rows):
        cells = [cell for table in tables for cell in _cells(table, label, ranks[table.block])]
        yield f"| {label} | " + " | ".join(cells) + " |"


def _ranks(table: FigureTable) -> dict[str, Rank]:
    values = {row.group: row.figure.values for row in table.rows if row.figure is not None}
    return rank_intervals(values, higher=table.facts.better == "higher")


def _cells(table: FigureTable, label: str, ranks: Mapping[str, Rank]) -> list[str]:
    row = next((row for row in table.rows if row.group == label), None)
    if row is None or row.figure is None:
        return ["", "", ""]
    return [_interval(row.figure), _difference(row), str(ranks[label])]


def _difference(row: FigureRow) -> str:
    if row.difference is None:
        return ""
    p = row.difference.t.adjusted
    return f"{row.difference.over_seeds.mean:+.3f}{'*' if p is not None and p < ALPHA else ''}"


def _interval(figure: OverSeeds) -> str:
    return f"{figure.mean:.3f}" + ("" if figure.half is None else f" ± {figure.half:.3f}")


def _cost(compared: Comparison, baseline: str) -> Iterator[str]:
    """Of the first noise rate: labels do not change what a step costs."""
    block = compared.cost[0].block
    rows = [row for row in compared.cost if row.block == block]
    base = next((row.seconds for row in rows if row.group == baseline), None)
    yield f"\n### Cost ({block})\n"
    yield f"| method | seconds | × {BASE} | tokens/s | peak memory (MB) | passes per step |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        ratio = f"{row.seconds.mean / base.mean:.2f}" if row.seconds and base else ""
        cells = [row.group, _seconds(row), ratio, _mean(row.tokens_per_second), _memory(row), _passes(row)]
        yield f"| {' | '.join(cells)} |"


def _seconds(row: CostRow) -> str:
    return f"{row.seconds.mean:.1f}" if row.seconds else ""


def _mean(figure: OverSeeds | None) -> str:
    return f"{figure.mean:,.0f}" if figure else ""


def _memory(row: CostRow) -> str:
    return f"{row.peak_memory.mean / 1e6:,.0f}" if row.peak_memory else ""


def _passes(row: CostRow) -> str:
    return f"{row.passes:g}" if row.passes else ""


def _machine(environment: Mapping[str, Any]) -> str:
    accelerators = environment.get("accelerators") or []
    if accelerators and environment.get("device") != "cpu":
        return f"{len(accelerators)} × {accelerators[0]}"
    return f"{environment.get('cpus')} CPU cores, {environment.get('threads')} thread(s) a run"


def _settings(settings: Mapping[str, Any]) -> str:
    return "".join(f", `--{word} {value}`" for word, value in settings.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _listed(some: Sequence[Any]) -> str:
    return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in some)
