"""``alignzoo probe``: train a standalone safety probe, or compare two neuron selections."""

from __future__ import annotations

from typing import Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.cli.flags import flag_layer, given_options, setting_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import UsageError
from alignzoo.plan.resolve import require, resolve

SETTINGS = ("model", "data", "data_split", "data_format", "max_length", "max_prompt_length", "seed")
LAYER_COLUMNS = ["layer", "AUC", "accuracy", "ECE", "Brier"]


@cli_command("probe")
@setting_options(*SETTINGS)
@click.option("--out", metavar="DIR", help="folder for the trained probe")
@click.option("--max-pairs", type=click.IntRange(min=1), metavar="N", help="use at most this many pairs")
@click.option(
    "--layers", default="last", metavar="LAYERS", help="hidden layers to probe: last, all, or indices [default: last]"
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "last", "max"]),
    default="mean",
    help="pooling over the tokens of prompt and response [default: mean]",
)
@click.option(
    "--select",
    type=click.Choice(["anti-toxic", "toxic", "abs", "random", "all"]),
    default="anti-toxic",
    help="which neurons to select with the probe [default: anti-toxic]",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="NUMBER",
    help="share of all neurons to select [default: 0.01]",
)
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="number of neurons to select, instead of a share"
)
@click.option("--compare", nargs=2, metavar="A B", help="only compare two saved selections (files, folders or runs)")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    out: str | None,
    max_pairs: int | None,
    layers: str,
    pooling: Any,
    select: Any,
    share: float | None,
    count: int | None,
    compare: tuple[str, str] | None,
    as_json: bool,
    **_words: Any,
) -> None:
    """Train a safety probe on the model's hidden states, save it, and report how well it separates held-out prompts.

    Use it in a run with --geometry.probe DIR, or the neurons it selects with --geometry.select DIR. With several
    --layers, the one with the highest held-out AUC is saved.
    """
    if compare is not None:
        _refuse_beside_compare(ctx)
        _compare(*compare, as_json)
        return
    if out is None:
        raise UsageError(
            "missing option --out", hint="set the folder for the probe: --out DIR; see `alignzoo probe --help`"
        )
    _refuse_idle(select, share, count)
    plan = require(resolve([flag_layer(ctx)]))
    from alignzoo_analysis.probe_run import Choices, trained

    choices = Choices(max_pairs, layers, pooling, select, 0.01 if share is None else share, count)
    result = trained(plan, choices, out=out, report=ConsoleReporter())
    if as_json:
        print_json(result)
    else:
        _show(result)


def _refuse_idle(select: str, share: float | None, count: int | None) -> None:
    if share is not None and count is not None:
        raise UsageError("--share and --count exclude each other", hint="use only one of them")
    if select == "all" and (share is not None or count is not None):
        raise UsageError("--share and --count have no effect with --select all", hint="leave them out")


def _refuse_beside_compare(ctx: click.Context) -> None:
    typed = [f"--{option.key}" for option, _ in given_options(ctx)]
    typed += [
        f"--{name.replace('_', '-')}"
        for name in ("out", "max_pairs", "layers", "pooling", "select", "share", "count")
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if typed:
        raise UsageError(
            f"--compare trains nothing and cannot be combined with {', '.join(typed)}", hint="leave it out"
        )


def _compare(one: str, other: str, as_json: bool) -> None:
    from alignzoo.geometry.subspace import SavedSelection
    from alignzoo_analysis.overlap import overlap

    result = overlap(SavedSelection.read(one), SavedSelection.read(other))
    if as_json:
        print_json(result)
        return
    rows = [{"name": "all", **result}, *result["layers"]]
    print_table(
        ["neurons of", "A", "B", "shared", "Jaccard", "by chance"],
        [
            [row["name"], *map(str, row["neurons"]), str(row["shared"]), _text(row["jaccard"]), _text(row["chance"])]
            for row in rows
        ],
    )


def _show(result: dict[str, Any]) -> None:
    selection, layers = result.pop("selection"), result.pop("layers", None)
    print_table(["", ""], _rows(result))
    if layers is not None:
        print_lines("")
        print_table(LAYER_COLUMNS, [[_text(value) for value in row.values()] for row in layers], "held-out figures")
    if selection is not None:
        from alignzoo.geometry.subspace import described

        counts = selection["neurons_by_layer"]
        title = described(selection["neurons"], selection["of"], selection["select"], "MLP neurons")
        print_lines("")
        print_table(["neurons of", "selected"], [[name, str(count)] for name, count in counts.items()], title)


def _rows(facts: dict[str, Any], prefix: str = "") -> list[list[str]]:
    rows: list[list[str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            rows.append([f"{prefix}{name}", _text(value)])
    return rows


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
