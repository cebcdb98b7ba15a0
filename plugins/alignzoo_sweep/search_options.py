"""``alignzoo sweep --search``: a search over options instead of a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from alignzoo.cli.console import print_json, print_lines, print_table, results_only
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import UsageError

if TYPE_CHECKING:
    from alignzoo.plan.recipe import Layer
    from alignzoo.records.sweep import SweepRecord
    from alignzoo.sweeps.search_folder import SearchRecord
    from alignzoo.sweeps.spec import Spec

Function = TypeVar("Function", bound=Callable[..., Any])
_ALONE = ("trials", "objective", "range", "search_seed")
_SHOWN = 10
"""Trials that are printed, the best first; all of them are in the folder and in ``--json``."""


def search_options(function: Function) -> Function:
    """Adds the options of a search."""
    options = [
        click.option(
            "--search",
            metavar="[random|optuna]",
            type=click.Choice(["random", "optuna"]),
            help="search the options of the methods on validation rows instead of running a grid",
        ),
        click.option(
            "--objective", multiple=True, metavar="FIGURE", help="figure to search by (repeatable: their mean)"
        ),
        click.option("--trials", type=click.IntRange(min=1), metavar="N", help="points to try [default: 20]"),
        click.option(
            "--range", multiple=True, metavar="WORD[=LOW:HIGH]", help="what to search [default: all by their cards]"
        ),
        click.option("--search-seed", type=click.IntRange(min=0), metavar="N", help="seed of the search [default: 0]"),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def refuse_or_search(spec: Spec, words: Mapping[str, Any]) -> bool:
    """Whether the line asks for a search.

    Raises:
        UsageError: it mixes one with a grid, or its options are incomplete.
    """
    given = [f"--{name.replace('_', '-')}" for name in _ALONE if words[name] not in (None, ())]
    if words["search"] is None:
        if given:
            raise UsageError(f"{given[0]} belongs to a search", hint="add --search random, or leave it out")
        return False
    if spec.grid or spec.zipped:
        raise UsageError("--search and a grid exclude each other", hint="search ranges instead: --range WORD=a,b,c")
    if not words["objective"]:
        raise UsageError(
            "--search needs an --objective", hint="name a figure on validation rows, as eval/rewards/accuracies"
        )
    return True


def search(spec: Spec, folder: Path, words: Mapping[str, Any], *, as_json: bool, trusting: bool) -> int:
    """Run or resume a search; returns the exit code."""
    from alignzoo.plan.resolve import require, resolve
    from alignzoo.sweeps.execute import run_sweep
    from alignzoo.sweeps.search import direction, run_search, trial_layers
    from alignzoo.sweeps.search_asked import asked_ranges
    from alignzoo.sweeps.search_folder import Search
    from alignzoo.sweeps.spec import Spec

    for objective in words["objective"]:
        direction(objective)
    ranges = asked_ranges(words["range"], require(resolve(trial_layers(spec.layers))))
    if words["dry_run"]:
        rows = [[word, one.text()] for word, one in ranges.items()]
        print_json(dict(rows)) if as_json else print_table(["option", "range"], rows)
        return 0
    stated = next((layer.values["seed"] for layer in reversed(spec.layers) if "seed" in layer.values), 0)
    asked = Search(
        spec.layers,
        spec.seeds if spec.seeds is not None else (int(stated),),
        words["objective"],
        ranges,
        trials=words["trials"] or 20,
        sampler=words["search"],
        seed=words["search_seed"] or 0,
        batch=words["workers"] or 1,
    )
    reporter = ConsoleReporter()

    def run(
        where: Path, layers: Sequence[Layer], axes: Mapping[str, Sequence[Any]], seeds: Sequence[int]
    ) -> SweepRecord:
        return run_sweep(
            where,
            Spec(layers, zipped=axes, seeds=seeds),
            launcher=words["launcher"] or "local",
            workers=words["workers"],
            retry=words["retry_failed"],
            trust_remote_code=trusting,
            reporter=reporter,
        )

    with results_only():
        record = run_search(folder, asked, run, retry=words["retry_failed"], reporter=reporter)
    print_json(record.to_dict()) if as_json else _show(record)
    return 1 if any(trial.state == "failed" for trial in record.trials) else 0


def _show(record: SearchRecord) -> None:
    from alignzoo.sweeps.search_folder import BEST_FILE

    scored = sorted((t for t in record.trials if t.score is not None), key=lambda t: (-(t.score or 0), t.number))
    figures = list(scored[0].figures) if scored else []
    rows = [
        [str(trial.number), *(f"{trial.figures[name]:.4g}" for name in figures), trial.label]
        for trial in scored[:_SHOWN]
    ]
    print_table(["trial", *figures, "values"], rows)
    failed = sum(trial.state == "failed" for trial in record.trials)
    print_lines("", f"{len(scored)} of {len(record.trials)} trials scored{f', {failed} failed' if failed else ''}")
    print_lines(f"best: alignzoo run --recipe {record.folder / BEST_FILE}")
