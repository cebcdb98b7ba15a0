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
    help="lengths of the perturbation, comma-separated [default: 0.01,0.02,0.05,0.1,0.2]",
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
    help="all, neurons, or patterns of weights' names [default: the run's neurons where it has some, else all]",
)
@click.option("--selection", metavar="PATH", help="saved neurons (a file, folder or run), instead of the run's")
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
    """Measure the rise of the loss on held-out pairs around a model's weights: at the worst case and on average.

    Of a RUN, its trained model is measured by its plan, against the model that it started from. Of a MODEL, the DPO
    loss on the pairs that a run with the same --data would hold out, against the model itself. Beside the --subspace,
    all trained weights are measured at the same radii.
    """
    lengths = _radii(radii)
    if subspace != "neurons" and any(option.key == "probe.share" for option, _ in given_options(ctx)):
        raise UsageError("--probe.share does nothing without --subspace neurons", hint="leave it out")
    if selection is not None and subspace not in (None, "neurons"):
        raise UsageError(f"--selection does nothing with --subspace {subspace}", hint="leave one of them out")
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
            f"a run is measured by its own plan, which {', '.join(typed)} would change",
            hint=f"leave it out, or measure the model alone: alignzoo sharpness {run / 'model'} --data DATA",
        )
    return read_plan(run, trust_remote_code=trusting, command="sharpness")


def _plan_of_model(ctx: click.Context, model: str) -> Plan:
    given = {option.key: value for option, value in given_options(ctx)}
    named = registry().named_extension("model", model) is not None
    if "data" not in given and not named and not local_path(model).exists():
        raise UsageError(
            f"{model}: no such run folder, and no such file or folder",
            hint="give the folder of a run; a model of the hub needs --data as well",
        )
    if "data" not in given:
        raise UsageError(
            f"{model} is measured on the held-out pairs of some data",
            hint="name them with --data, or give a run folder",
        )
    return require(resolve([Layer("flag", {"model": model, **given})]))


def _radii(words: str) -> list[float]:
    try:
        found = sorted({float(word) for word in words.split(",")})
    except ValueError as error:
        raise UsageError(f"--radii {words!r} are no numbers", hint="write for example --radii 0.01,0.05,0.1") from error
    wrong = [radius for radius in found if not (radius > 0 and math.isfinite(radius))]
    if wrong:
        raise UsageError(f"--radii: {wrong[0]:g} is not above 0", hint="a radius is the length of a perturbation")
    return found


def _show(result: dict[str, Any]) -> None:
    print_lines(
        f"{result['model']}: {result['objective']} on {result['pairs']} held-out pairs is {result['loss']:.6g}", ""
    )
    rows = []
    for subspace in result["subspaces"]:
        for i, point in enumerate(subspace["slices"]):
            head = [subspace["name"], str(subspace["weights"])] if i == 0 else ["", ""]
            worst = "-" if point["worst"] is None else f"{point['worst']:+.4g}"
            rows.append([*head, f"{point['radius']:g}", worst, f"{point['average']:+.4g}", f"{point['spread']:.2g}"])
    print_table(COLUMNS, rows, "rise of the loss")
    if "out" in result:
        print_lines("", result["out"])
