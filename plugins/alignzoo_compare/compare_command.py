"""``alignzoo compare``: groups of runs over seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json
from alignzoo.errors import UsageError


@cli_command("compare")
@click.argument("folders", metavar="RUN...|SWEEP", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    metavar="GROUP",
    help="group to which differences are taken, by its label or by values such as loss=dpo,geometry=plain "
    "[default: the first group]",
)
@click.option(
    "--figures",
    metavar="PATTERN",
    multiple=True,
    help="figures to compare, such as 'sandbox/asr/*' (repeatable) [default: those with a known direction]",
)
@click.option(
    "--by",
    metavar="WORD",
    multiple=True,
    help="compare within each value of a word, such as label-noise (repeatable) "
    "[default: axes of the sweep that set model, data or noise]",
)
@click.option(
    "--detect",
    metavar="NUMBER",
    type=click.FloatRange(min=0, min_open=True),
    help="difference to be seen, for the number of seeds that it needs [default: the observed one]",
)
@click.option("--anyway", is_flag=True, help="compare runs on different data, splits, judges, prompts or steps as well")
@click.option(
    "--format",
    "layout",
    type=click.Choice(["markdown", "latex", "csv"]),
    help="print the tables for a document or another program",
)
@json_option
def command(
    folders: tuple[Path, ...],
    baseline: str | None,
    figures: tuple[str, ...],
    by: tuple[str, ...],
    detect: float | None,
    anyway: bool,
    layout: Literal["markdown", "latex", "csv"] | None,
    as_json: bool,
) -> None:
    """Compare the finished runs of folders or of a sweep, grouped by everything but their seed.

    For each figure: means over seeds with 95 % intervals, and differences to a baseline, paired by seed, with the
    p-values of a paired t-test, Wilcoxon's signed-rank test and a permutation test, Holm's correction, the effect size,
    and the seeds that a difference needs to be seen. Then what the runs cost, and the Pareto front of safety,
    over-refusal and capability.
    """
    if as_json and layout is not None:
        raise UsageError("--json and --format print different things", hint="leave one of them out")
    from alignzoo.comparison.compare import compare
    from alignzoo.comparison.groups import find_group, groups_of, unfinished

    groups = groups_of(folders, by=by)
    against = None if baseline is None else find_group(groups, baseline)
    comparison = compare(groups, baseline=against, figures=figures or None, detect=detect, anyway=anyway)
    comparison = replace(comparison, warnings=(*unfinished(folders), *comparison.warnings))
    if as_json:
        print_json(comparison.to_dict())
        return
    from alignzoo_compare import formats

    formats.printed(comparison, layout)
