"""``alignzoo judge``: judge responses, and measure judges against human labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from alignzoo.base.files import local_path
from alignzoo.cli.command import WIDE, json_option, with_shared_options, write_commands
from alignzoo.cli.flags import PlanCommand, given_options, kind_options, setting_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import EMBEDDED


class JudgeGroup(click.Group):
    """The subcommands of ``alignzoo judge``; ``pairs`` is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["check", "pairs", "run"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "pairs":
            from alignzoo_evaluation.pairs import command as pairs

            return pairs
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from alignzoo.base.suggest import suggest

        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            known = self.list_commands(ctx)
            raise UsageError(
                f"alignzoo judge has no command {args[0]!r}",
                hint=suggest(args[0], known) or f"it has: {', '.join(known)}",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        write_commands(formatter, [one for one in found if one is not None])


class CheckCommand(PlanCommand):
    """``check NAME LABELS``: judges before the file are as if named with ``--judge``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = next((i for i, word in enumerate(args) if word.startswith("-")), len(args))
        named = [part for name in args[: max(words - 1, 0)] for part in ("--judge", name)]
        return super().parse_args(ctx, [*named, *args[max(words - 1, 0) :]])


@click.group("judge", cls=JudgeGroup, context_settings=WIDE)
def command() -> None:
    """Judge responses, compare two models' responses, or measure a judge against human labels."""


def _check_command(function: Any) -> Any:
    made = command.command("check", cls=CheckCommand, context_settings=WIDE)(function)
    return with_shared_options(made)


def _run_command(function: Any) -> Any:
    made = command.command("run", cls=PlanCommand, context_settings=WIDE)(function)
    return with_shared_options(made)


@_check_command
@click.argument("labels", metavar="[NAME...] LABELS.csv")
@kind_options("judge")
@setting_options("trust_remote_code")
@click.option("--request", metavar="COLUMN", help="column of the requests [default: by its name]")
@click.option("--response", metavar="COLUMN", help="column of the responses [default: by its name]")
@click.option("--label", metavar="COLUMN", help="column of the human labels [default: by its name]")
@click.option(
    "--positive", multiple=True, metavar="VALUE", help="label that is positive (repeatable) [default: 1/true/yes]"
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="the first N responses")
@click.option(
    "--show", type=click.IntRange(min=0), default=10, metavar="N", help="disagreements to print [default: 10]"
)
@click.option("--out", metavar="DIR", help="folder for check.json and the verdicts, kept for the next time")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    labels: str,
    request: str | None,
    response: str | None,
    label: str | None,
    positive: Sequence[str],
    limit: int | None,
    show: int,
    out: str | None,
    as_json: bool,
    **_words: Any,
) -> None:
    """Measure judges against human labels: accuracy, Cohen's κ, precision, recall and F1 with 95 % intervals.

    LABELS is a .csv, .tsv or .jsonl file with a response and a label in each row, and the request where the judge reads
    it. Several judges are compared with each other, too.
    """
    from alignzoo_evaluation.judge_labels import Columns, read_labels
    from alignzoo_evaluation.judge_work import Checked, checked, show_check

    plan = _plan(ctx)
    labelled = read_labels(local_path(labels), Columns(request, response, label), positive, limit)
    result: Checked = checked(plan, labelled, _folder(out), ConsoleReporter())
    show_check(result, labels, show, as_json=as_json, out=_folder(out))


@_run_command
@click.argument("responses", metavar="RESPONSES.jsonl")
@kind_options("judge")
@setting_options("trust_remote_code")
@click.option("--request", metavar="COLUMN", help="column of the requests [default: by its name]")
@click.option("--response", metavar="COLUMN", help="column of the responses [default: by its name]")
@click.option("--show", type=click.IntRange(min=0), default=10, metavar="N", help="verdicts to print [default: 10]")
@click.option("--out", metavar="DIR", help="folder for verdicts.jsonl and judged.json; verdicts there are reused")
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    responses: str,
    request: str | None,
    response: str | None,
    show: int,
    out: str | None,
    as_json: bool,
    **_words: Any,
) -> None:
    """Judge the responses of a file: an evaluation's, or any with a request (or prompt) and a response in each line."""
    from alignzoo_evaluation.judge_labels import Columns, read_answers
    from alignzoo_evaluation.judge_work import judged_file, show_judged

    plan = _plan(ctx)
    answers = read_answers(local_path(responses), Columns(request, response))
    result = judged_file(plan, answers, _folder(out), ConsoleReporter())
    show_judged(result, responses, show, as_json=as_json, out=_folder(out))


def _folder(out: str | None) -> Path | None:
    return None if out is None else local_path(out)


def _plan(ctx: click.Context) -> Plan:
    """The plan of the typed judges; the model is a placeholder.

    Raises:
        UsageError: no judge was named.
        AlignzooError: as resolving finds.
    """
    from alignzoo.session.subject import model_plan

    plan = model_plan(EMBEDDED, {option.key: value for option, value in given_options(ctx)})
    if not plan.of("judge"):
        raise UsageError("which judge?", hint="name it: --judge refusal; `alignzoo ls judge` lists them")
    return plan
