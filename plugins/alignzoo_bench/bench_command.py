"""``alignzoo bench``: the standing comparison."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table, results_only
from alignzoo.cli.flags import PlanCommand, flag_layer, setting_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import UsageError

if TYPE_CHECKING:
    from alignzoo_bench.folder import Bench
    from alignzoo_bench.methods import Entry

WORLD = "world2"
OBJECTIVE = ("{world}/asr/validation", "{world}/refusal/validation")
"""What a tuned point is chosen by."""
_SETTINGS = ("max_steps", "batch_size", "lr", "samples")


@cli_command("bench", cls=PlanCommand)
@setting_options(*_SETTINGS)
@click.option("--methods", default="", metavar="NAMES", help="losses, wrappers and controllers [default: all]")
@click.option("--seeds", default="5", metavar="N|LIST", help="number of seeds from 0, or a list [default: 5]")
@click.option("--noise", default="0,0.3", metavar="RATES", help="label noise, comma-separated [default: 0,0.3]")
@click.option("--world", default=WORLD, metavar="RECIPE", help=f"recipe of an embedded world [default: {WORLD}]")
@click.option("--tuned", is_flag=True, help="search a point for each method and noise rate as well, and run it")
@click.option("--trials", type=click.IntRange(min=1), default=8, help="trials of each search [default: 8]")
@click.option("--search", type=click.Choice(["random", "optuna"]), default="random", help="[default: random]")
@click.option("--objective", multiple=True, metavar="FIGURE", help="figure to tune by, on validation rows (repeatable)")
@click.option("--out", default="bench", metavar="DIR", help="folder of the bench [default: bench]")
@click.option("--page", metavar="FILE", help="write what the bench has found between this page's markers, and stop")
@click.option("--launcher", default="local", metavar="NAME", help="what starts the workers [default: local]")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="runs at a time [default: one per device]")
@click.option("--retry-failed", is_flag=True, help="run failed cells again")
@click.option("--dry-run", is_flag=True, help="list the methods and count the runs, and stop")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, out: str, page: str | None, **words: Any) -> None:
    """Compare methods in an embedded world: losses, and wrappers and controllers on DPO, each with its card's defaults,
    over seeds and label noise; with --tuned also at a point from a search on validation prompts.

    The same command line resumes it. Methods and tuned points can be added to a bench that is there.

    alignzoo bench --methods simpo,cdpo,sam --seeds 5 --out bench
    """
    from alignzoo_bench.folder import begin
    from alignzoo_bench.methods import BASE, chosen_entries
    from alignzoo_bench.running import number_of_runs

    folder = Path(out)
    if page is not None:
        from alignzoo_bench.page import write_page

        write_page(folder, Path(page))
        print_lines(page)
        return
    names = [name.strip() for name in words["methods"].split(",") if name.strip()]
    bench = _asked(flag_layer(ctx).values, names, words)
    if words["dry_run"]:
        _show_plan(bench, number_of_runs(bench, bench.entries if words["tuned"] else ()), as_json)
        return
    if all(entry.label != BASE for entry in bench.entries):
        raise UsageError(f"{BASE} cannot run in {bench.world}: {bench.unsuitable.get(BASE)}")
    chosen = [entry for entry in chosen_entries(names) if entry in bench.entries]
    with results_only():
        untuned = _run(folder, begin(folder, bench), chosen if words["tuned"] else [], words)
    facts = _facts(folder, untuned)
    if as_json:
        print_json(facts)
    else:
        _show(facts)
    if facts["failed"] or untuned:
        ctx.exit(1)


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(rate) for rate in text.split(","))
    except ValueError:
        rates = ()
    if not rates or not all(0 <= rate <= 1 for rate in rates) or len(set(rates)) < len(rates):
        raise UsageError(f"--noise {text}: not rates from 0 to 1, each once", hint="write --noise 0,0.3")
    return rates


def _asked(settings: dict[str, Any], names: list[str], words: dict[str, Any]) -> Bench:
    """What the line asks for."""
    from alignzoo.sweeps.words import typed_seeds
    from alignzoo_bench.folder import Bench
    from alignzoo_bench.methods import chosen_entries, columns_of, unsuitable, world_layer

    noise = _rates(words["noise"])
    world = world_layer(words["world"], settings)
    columns = columns_of(world)
    entries = chosen_entries(names)
    reasons = {entry.label: unsuitable(entry, world, columns) for entry in entries}
    objective = words["objective"] or tuple(name.format(world=words["world"]) for name in OBJECTIVE)
    return Bench(
        world=words["world"],
        settings=settings,
        seeds=tuple(typed_seeds(words["seeds"])),
        noise=noise,
        entries=tuple(entry for entry in entries if reasons[entry.label] is None),
        unsuitable={label: reason for label, reason in reasons.items() if reason is not None},
        trials=words["trials"] if words["tuned"] else 0,
        sampler=words["search"],
        objective=tuple(objective),
        commit=_commit(),
    )


def _commit() -> str | None:
    """The commit of a checkout of alignzoo; None for an installed one."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None


def _run(folder: Path, bench: Bench, tuned: list[Entry], words: dict[str, Any]) -> list[str]:
    """Run what has not finished; returns what could not be tuned."""
    from alignzoo.records.sweep import SweepRecord
    from alignzoo.sweeps.execute import run_sweep
    from alignzoo.sweeps.spec import Spec
    from alignzoo_bench.running import run_defaults, run_tuned

    reporter, retry = ConsoleReporter(), words["retry_failed"]

    def sweep(where: Path, spec: Spec | None) -> SweepRecord:
        launcher, workers = words["launcher"], words["workers"]
        return run_sweep(where, spec, launcher=launcher, workers=workers, retry=retry, reporter=reporter)

    run_defaults(folder, bench, sweep, reporter=reporter)
    return run_tuned(folder, bench, tuned, sweep, retry=retry, reporter=reporter) if tuned else []


def _facts(folder: Path, untuned: list[str]) -> dict[str, Any]:
    from alignzoo_bench.folder import read_bench, sweeps_of

    sweeps = list(sweeps_of(folder, read_bench(folder)))
    failed = [
        {"sweep": str(sweep.folder), "cell": cell.name, **vars(failure)}
        for sweep in sweeps
        for cell in sweep.cells
        if (failure := sweep.failure(cell)) is not None
    ]
    return {
        "folder": str(folder),
        "runs": sum(len(sweep.cells) for sweep in sweeps),
        "finished": sum(1 for sweep in sweeps for _ in sweep.finished()),
        "failed": failed,
        "untuned": untuned,
    }


def _show(facts: dict[str, Any]) -> None:
    print_lines(f"{facts['finished']} of {facts['runs']} runs finished")
    print_lines(*(f"failed: {one['cell']}: {one['error'].splitlines()[0]}" for one in facts["failed"]))
    print_lines(*(f"not tuned: {one}" for one in facts["untuned"]))
    if facts["failed"]:
        print_lines("try failed runs again with the same command and --retry-failed")
    print_lines(f"write the page: alignzoo bench --out {shlex.quote(facts['folder'])} --page docs/bench.md")


def _show_plan(bench: Bench, runs: dict[str, int], as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json({**asdict(bench), "runs": runs})
        return
    print_table(["method", "kind"], [[entry.label, entry.kind] for entry in bench.entries])
    print_lines("", *(f"not suitable: {label}: {reason}" for label, reason in bench.unsuitable.items()))
    print_lines(
        f"{len(bench.entries)} methods × {len(bench.seeds)} seeds × {len(bench.noise)} noise rates: "
        f"{runs['default']} runs at defaults, {runs['search']} in searches, at most {runs['tuned']} at tuned points"
    )
