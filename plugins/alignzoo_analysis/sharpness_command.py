"""``alignzoo sharpness``: how fast the loss rises around a model's weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from alignzoo.base.files import local_path
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.cli.flags import given_options, setting_options, split_trust
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import PLAN_FILE, read_plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plugin.registry import registry

SETTINGS = (
    "data",
    "data_split",
    "data_format",
    "eval_data",
    "eval_data_split",
    "eval_data_format",
    "eval_share",
    "eval_pairs",
    "max_length",
    "max_prompt_length",
    "micro_batch_size",
    "probe_share",
    "seed",
    "trust_remote_code",
)
COLUMNS = ["subspace", "weights", "radius", "worst case", "average", "+-"]


@cli_command("sharpness")
@click.argument("where", metavar="MODEL|RUN")
@setting_options(*SETTINGS)
@click.option(
    "--radii",
    default="0.01,0.02,0.05,0.1,0.2",
    metavar="NUMBERS",
    help="norms of the perturbation, comma-separated [default: 0.01,0.02,0.05,0.1,0.2]",
)
@click.option(
    "--directions",
    type=click.IntRange(min=1),
    default=5,
    metavar="N",
    help="random directions to average over [default: 5]",
)
@click.option(
    "--subspace",
    metavar="NAME",
    help="all, neurons, or weight-name patterns [default: the run's neurons if it has any, else all]",
)
@click.option("--selection", metavar="PATH", help="saved neurons (file, folder or run) to use instead of the run's")
@click.option("--out", metavar="DIR", help="folder for sharpness.json and sharpness.png")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    where: str,
    radii: str,
    directions: int,
    subspace: str | None,
    selection: str | None,
    out: str | None,
    as_json: bool,
    **_words: Any,
) -> None:
    """Measure how much the held-out loss rises around a model's weights: in the worst case and on average.

    For a RUN, measures its trained model with its own plan; the reference is the initial model. For a MODEL, measures
    the DPO loss on the pairs that a run with the same --data would hold out; the reference is the model itself. All
    trained weights are measured at the same radii, next to the --subspace.
    """
    lengths = _radii(radii)
    if subspace != "neurons" and any(option.key == "probe.share" for option, _ in given_options(ctx)):
        raise UsageError("--probe.share has no effect without --subspace neurons", hint="leave it out")
    if selection is not None and subspace not in (None, "neurons"):
        raise UsageError(f"--selection has no effect with --subspace {subspace}", hint="leave one of them out")
    run = Path(where) if (Path(where) / PLAN_FILE).is_file() else None
    plan = _plan_of_model(ctx, where) if run is None else _plan_of_run(ctx, run)
    from alignzoo_analysis.sharpness_run import Question, measured

    question = Question(plan, run, lengths, directions, subspace, selection)
    result = measured(question, out=out, report=ConsoleReporter())
    if as_json:
        print_json(result)
    else:
        _show(result)


def _plan_of_run(ctx: click.Context, run: Path) -> Plan:
    trusting, others = split_trust(ctx)
    typed = [f"--{key}" for key in others]
    if typed:
        raise UsageError(
            f"a run is measured with its own plan, so {', '.join(typed)} cannot be set",
            hint=f"leave it out, or measure the model by itself: alignzoo sharpness {run / 'model'} --data DATA",
        )
    return read_plan(run, trust_remote_code=trusting, command="sharpness")


def _plan_of_model(ctx: click.Context, model: str) -> Plan:
    given = {option.key: value for option, value in given_options(ctx)}
    named = registry().named_extension("model", model) is not None
    if "data" not in given and not named and not local_path(model).exists():
        raise UsageError(
            f"{model}: no such run folder, file or model folder",
            hint="name a run folder; for a hub model, add --data",
        )
    if "data" not in given:
        raise UsageError(
            f"measuring the model {model} needs data",
            hint="name it with --data, or measure a run folder",
        )
    return require(resolve([Layer("flag", {"model": model, **given})]))


def _radii(words: str) -> list[float]:
    try:
        found = sorted({float(word) for word in words.split(",")})
    except ValueError as error:
        raise UsageError(
            f"--radii {words!r}: not a list of numbers", hint="for example --radii 0.01,0.05,0.1"
        ) from error
    wrong = [radius for radius in found if not (radius > 0 and math.isfinite(radius))]
    if wrong:
        raise UsageError(f"--radii: {wrong[0]:g} is not positive", hint="a radius is the norm of a perturbation")
    return found


def _show(result: dict[str, Any]) -> None:
    print_lines(
        f"{result['model']}: {result['objective']} on {result['pairs']} held-out pairs: {result['loss']:.6g}", ""
    )
    rows = []
    for subspace in result["subspaces"]:
        for i, point in enumerate(subspace["slices"]):
            head = [subspace["name"], str(subspace["weights"])] if i == 0 else ["", ""]
            worst = "-" if point["worst"] is None else f"{point['worst']:+.4g}"
            rows.append([*head, f"{point['radius']:g}", worst, f"{point['average']:+.4g}", f"{point['spread']:.2g}"])
    print_table(COLUMNS, rows, "loss increase")
    if "out" in result:
        print_lines("", result["out"])
