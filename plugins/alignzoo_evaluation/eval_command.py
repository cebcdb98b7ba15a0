"""``alignzoo eval``: how often a model goes along with harmful requests, refuses harmless ones, and solves tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from alignzoo.base.files import local_path
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table, results_only
from alignzoo.cli.flags import PlanCommand, flag_layer, kind_options, setting_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import Interrupted, UsageError

SETTINGS = ("precision", "quantize", "trust_remote_code")


def _names(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names, comma-separated or one by one, each once."""
    return tuple(dict.fromkeys(name for words in given for word in words.split(",") if (name := word.strip())))


def _size(ctx: click.Context, param: click.Parameter, given: str) -> int | None:
    """``auto`` or a number of prompts."""
    if given == "auto":
        return None
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"--batch-size {given} is neither a number nor auto", hint="for example --batch-size 8")
    return int(given)


@cli_command("eval", cls=PlanCommand)
@click.argument("where", metavar="RUN|MODEL")
@click.option(
    "--suite",
    "suites",
    multiple=True,
    callback=_names,
    metavar="NAMES",
    help="suites of prompts, comma-separated or repeated; `alignzoo suites` lists them [default: those of the run's "
    "own data]",
)
@click.option(
    "--tasks",
    multiple=True,
    callback=_names,
    metavar="NAMES",
    help="tasks or groups of lm-eval, or: capability, capability-small",
)
@click.option(
    "--jailbreak",
    "jailbreaks",
    multiple=True,
    callback=_names,
    metavar="NAMES",
    help="wrap harmful requests in these jailbreaks, one evaluation each; `alignzoo ls jailbreak` lists them",
)
@kind_options("judge")
@click.option("--against", metavar="base|RUN|MODEL", help="compare with another model, or the one the run started from")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="only the first N prompts of each suite or task")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, metavar="N", help="of sampling and jailbreaks [default: 0]"
)
@click.option(
    "--batch-size", default="auto", callback=_size, metavar="N|auto", help="prompts at a time [default: auto]"
)
@click.option("--data-dir", metavar="DIR", help="folder with local copies of the suites' data")
@click.option("--out", metavar="DIR", help="folder of the evaluation [default: RUN/evaluation or runs/eval-MODEL]")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), metavar="N", help="tokens of a response [default: the suite's]"
)
@click.option("--temperature", type=float, default=0.0, metavar="NUMBER", help="0 is greedy [default: 0]")
@click.option("--top-p", type=float, default=1.0, metavar="NUMBER", help="nucleus to sample from [default: 1]")
@click.option("--system", metavar="TEXT", help="system prompt")
@click.option("--num-fewshot", type=click.IntRange(min=0), metavar="N", help="examples in the prompts of tasks")
@click.option("--include-path", metavar="DIR", help="folder with more lm-eval tasks")
@click.option("--task-chat-template", is_flag=True, help="send the prompts of tasks with the chat template, too")
@click.option("--confirm-run-unsafe-code", is_flag=True, help="allow tasks that run code which the model writes")
@click.option(
    "--backend",
    type=click.Choice(["native", "vllm"]),
    default="native",
    help="what generates; vllm needs its package and CUDA [default: native]",
)
@click.option("--overwrite", is_flag=True, help="replace responses of another model or other settings in the folder")
@click.option("--by-category", is_flag=True, help="also show the rate in each category of a suite")
@setting_options(*SETTINGS)
@json_option
@click.pass_context
def command(ctx: click.Context, where: str, as_json: bool, by_category: bool, **words: Any) -> None:
    """Generate a model's responses to suites of prompts, judge them, and report rates with 95 % intervals.

    Everything is kept in the folder of the evaluation: the same command resumes an interrupted one, and with another
    --judge it judges the same responses again.
    """
    from alignzoo_evaluation.eval_run import Words, evaluated, folder_of

    values = dict(flag_layer(ctx).values)
    given = Words(
        where,
        values=values,
        **{name: words[name] for name in Words.typed() if name in words},
    )
    out = local_path(words["out"]) if words["out"] else folder_of(where)
    try:
        with results_only():
            evaluation = evaluated(given, out, ConsoleReporter())
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted", hint=f"the same command resumes from what is in {out}") from error
    if as_json:
        print_json({"out": str(out), **evaluation.to_json()})
    else:
        _show(evaluation, out, by_category)


def _show(evaluation: Any, out: Path, by_category: bool) -> None:
    from alignzoo.evaluate.show import notes, tables

    for table in tables(evaluation, by_category=by_category):
        print_table(table.columns, table.rows, table.title)
        print_lines("")
    print_lines(*notes(evaluation), f"written to {out / 'evaluation.json'}")
