"""``alignzoo check``: contract tests for a method, or for everything a distribution provides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from alignzoo.base.suggest import suggest
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table, results_only
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.contract.card import EXTENSION_KINDS, Card
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError, BrokenPluginError, UsageError
from alignzoo.plugin.contract_records import save_record
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import plugins_from, registry
from alignzoo.plugin.sources import sources
from alignzoo.report import Reporter
from alignzoo.testing import Outcome, Report, checks_for
from alignzoo.testing.checks import outcomes_of
from alignzoo.testing.extensions import check_extensions


@dataclass(frozen=True)
class Checked:
    """A report and the plugin it belongs to."""

    plugin: Plugin
    report: Report


@cli_command("check")
@click.argument("names", nargs=-1, metavar="NAME|DIST|FILE...")
@click.option("--kind", type=click.Choice(list(KINDS)), help="check only methods of this kind")
@click.option(
    "--rule", "rules", multiple=True, metavar="RULE", help="check only this rule of the contract (repeatable)"
)
@click.option("--all", "everything", is_flag=True, help="check everything that is installed")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    kind: str | None,
    rules: tuple[str, ...],
    everything: bool,
    as_json: bool,
) -> None:
    """Run the contract tests that every built-in method passes.

    NAME is a method, DIST an installed distribution with everything in it, FILE a single-file plugin. Exit code 1 if
    any rule fails. `alignzoo ls --wide` shows what passed on this machine.
    """
    if not names and not everything:
        raise UsageError("nothing to check", hint="name a method, a distribution or a file, or use --all")
    files = [name for name in names if name.endswith(".py")]
    now = sources()
    with plugins_from(*now.files, *files, third_party=now.third_party):
        others = [name for name in names if name not in files]
        cards, plugins = _chosen(others, [Path(file).resolve() for file in files], kind, everything)
        with results_only():
            checked = _run(cards, [] if rules else plugins, rules, ConsoleReporter())
        if everything:
            checked += [_broken(plugin) for plugin in registry().broken]
        remarks = [(plugin, text) for plugin in _once([*plugins, *(p for p, _ in cards)]) for text in plugin.remarks]
    if as_json:
        print_json(_facts(checked, remarks))
    else:
        _show(checked, remarks)
    if not all(one.report.ok for one in checked):
        ctx.exit(1)


def _chosen(
    names: list[str], files: list[Path], kind: str | None, everything: bool
) -> tuple[list[tuple[Plugin, Card]], list[Plugin]]:
    """The methods to check, and the plugins whose other contributions are checked too."""
    known = registry()
    plugins = [p for p in known.plugins if everything or p.distribution in names or p.file in files]
    broken = next((plugin for plugin in plugins if plugin.error), None)
    if broken is not None and not everything:
        raise BrokenPluginError(
            f"plugin {broken.label} does not load: {broken.error}",
            hint="fix it first; a broken plugin cannot be checked",
        )
    if not everything:
        _refuse_empty(plugins, kind)
    cards = [(p, m) for p, m in known.entries(kind) if isinstance(m, Card) and any(p is one for one in plugins)]
    taken = {plugin.distribution for plugin in plugins}
    for name in names:
        if name not in taken:
            cards += [entry for entry in _methods(name, kind) if entry not in cards]
    return cards, plugins if kind is None else []


def _refuse_empty(plugins: list[Plugin], kind: str | None) -> None:
    """Reject a named file or distribution with nothing to check."""
    for label in dict.fromkeys(plugin.label for plugin in plugins):
        own = [plugin for plugin in plugins if plugin.label == label]
        methods = [method for plugin in own for method in plugin.methods if kind in (None, method.kind)]
        if methods or (kind is None and any(plugin.provides for plugin in own)):
            continue
        remarks = [text for plugin in own for text in plugin.warnings]
        raise UsageError(
            f"{label} provides {'nothing' if kind is None else f'no {kind}'} to check",
            hint=remarks[0] if remarks else "`alignzoo new` writes a starter plugin",
        )


def _methods(name: str, kind: str | None) -> list[tuple[Plugin, Card]]:
    """The methods of that name: one per kind that has it, from every plugin that provides it."""
    known = registry()
    distribution, _, bare = name.rpartition(":")
    found = [
        (plugin, method)
        for plugin, method in known.entries(kind)
        if isinstance(method, Card)
        and bare in (method.name, *method.aliases)
        and distribution in ("", plugin.distribution)
    ]
    if found:
        return found
    for one in (kind,) if kind else KINDS:
        try:
            method = known.find(one, name)
        except BrokenPluginError:
            raise
        except AlignzooError:
            continue
        if not isinstance(method, Card):
            raise UsageError(f"{name!r} is a composition: {method.flags()}", hint="check its parts instead")
    for extension in EXTENSION_KINDS:
        homes = [plugin.distribution for plugin, card in known.extensions(extension) if card.name == name]
        if homes:
            raise UsageError(
                f"{name!r} is a {extension} of {homes[0]}, not a method",
                hint=f"alignzoo check {homes[0]} checks everything it provides",
            )
    everything = [*(m.name for _, m in known.entries(kind)), *(plugin.distribution for plugin in known.plugins)]
    raise UsageError(
        f"no method and no distribution is called {name!r}",
        hint=suggest(name, everything) or "`alignzoo ls` lists the methods",
    )


def _run(
    cards: list[tuple[Plugin, Card]], plugins: list[Plugin], asked: tuple[str, ...], report: Reporter
) -> list[Checked]:
    checks = [(plugin, card, checks_for(card)) for plugin, card in cards]
    known = {check.rule for _, _, rules in checks for check in rules}
    for rule in asked:
        if rule not in known:
            raise UsageError(
                f"there is no rule {rule!r}", hint=suggest(rule, known) or f"rules: {', '.join(sorted(known))}"
            )
    if asked:
        checks = [(plugin, card, [c for c in rules if c.rule in asked]) for plugin, card, rules in checks]
    done: list[Checked] = []
    with report.progress(sum(len(rules) for _, _, rules in checks), "checking", unit="rule") as bar:
        for plugin, card, rules in checks:
            outcomes: list[Outcome] = []
            for outcome in outcomes_of(rules):
                outcomes.append(outcome)
                bar.advance(at=f"{card.kind} {card.name} {outcome.rule}")
            done.append(Checked(plugin, Report(card.kind, card.name, tuple(outcomes))))
            if not asked:  # a few rules say nothing about the whole contract
                _remember(plugin, card, outcomes, report)
    return [*done, *(Checked(plugin, one) for plugin in plugins for one in check_extensions(plugin))]


def _remember(plugin: Plugin, card: Card, outcomes: list[Outcome], report: Reporter) -> None:
    failed = [outcome.rule for outcome in outcomes if outcome.status in ("failed", "unexpected")]
    expected = [outcome.rule for outcome in outcomes if outcome.status == "expected"]
    try:
        save_record(plugin, card, failed=failed, expected=expected)
    except OSError as error:
        report.warn(f"`alignzoo ls` will not show this check: {error}; set ALIGNZOO_CACHE to another folder")


def _broken(plugin: Plugin) -> Checked:
    """The report for a plugin that does not load."""
    outcome = Outcome("loads", "the plugin loads", "failed", str(plugin.error), plugin.seconds)
    return Checked(plugin, Report("plugin", plugin.label, (outcome,)))


def _once(plugins: list[Plugin]) -> list[Plugin]:
    return list({id(plugin): plugin for plugin in plugins}.values())


def _facts(checked: list[Checked], remarks: list[tuple[Plugin, str]]) -> dict[str, Any]:
    return {
        "ok": all(one.report.ok for one in checked),
        "checked": [
            {"distribution": one.plugin.distribution, "version": one.plugin.version, **one.report.to_dict()}
            for one in checked
        ],
        "warnings": [{"distribution": plugin.distribution, "warning": text} for plugin, text in remarks],
    }


def _show(checked: list[Checked], remarks: list[tuple[Plugin, str]]) -> None:
    rows = []
    for one in checked:
        for outcome in one.report.outcomes:
            row = [outcome.rule, outcome.status, f"{outcome.seconds:.2f} s", outcome.summary]
            rows.append([one.report.kind, one.report.name, *row])
    print_table(["kind", "name", "rule", "result", "time", "what"], rows)
    for one in checked:
        for line in _causes(one.report):
            print_lines("", line)
    print_lines("", *(f"warning: {plugin.label}: {text}" for plugin, text in remarks))
    for one in checked:
        if one.report.kind in KINDS or not one.report.ok:
            print_lines(f"{one.report.kind} {one.report.name} ({one.plugin.label}): {_tally(one.report)}")


def _causes(report: Report) -> list[str]:
    """Findings about a method: each cause once, with the rules it breaks."""
    rules: dict[tuple[str, str], list[str]] = {}
    for outcome in (outcome for outcome in report.outcomes if outcome.detail):
        cause = outcome.detail.removeprefix(f"{report.kind} {report.name!r} breaks {outcome.rule}: ")
        rules.setdefault((outcome.status, cause), []).append(outcome.rule)
    lines = []
    for (status, cause), names in rules.items():
        breaks = " breaks " if status == "failed" else ", "
        lines.append(f"{status}: {report.kind} {report.name!r}{breaks}{', '.join(names)}: {cause}")
    return lines


def _tally(report: Report) -> str:
    counts = Counter(outcome.status for outcome in report.outcomes)
    words = {"expected": "failed as expected", "unexpected": "passed unexpectedly"}
    return ", ".join(f"{count} {words.get(status, status)}" for status, count in counts.items())
