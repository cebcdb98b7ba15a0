"""``alignzoo judge pairs``: the win rate of one model's responses over another's."""

from __future__ import annotations

from typing import Any

import click

from alignzoo.base.files import local_path
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table, results_only
from alignzoo.cli.flags import PlanCommand, flag_layer, kind_options, setting_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import Interrupted, UsageError
from alignzoo.evaluate.verdicts.statistics import shown
from alignzoo.plan.plan import Method, Plan

COLUMNS = ["suite", "pairs", "win rate of A", "at equal length", "win/tie/loss", "consistent", "length A", "length B"]


@cli_command("pairs", cls=PlanCommand)
@click.argument("a", metavar="A")
@click.argument("b", metavar="[B]", required=False)
@kind_options("judge")
@click.option("--suite", metavar="NAME", help="compare on this suite only [default: all that both have]")
@click.option("--references", is_flag=True, help="compare A with the reference answers of its own prompts, without B")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="pairs at a time [default: the judge's]")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="of the bootstrap [default: 0]")
@click.option("--out", metavar="DIR", help="folder to keep the verdicts in [default: A's, or the folder A is in]")
@setting_options("trust_remote_code")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    a: str,
    b: str | None,
    suite: str | None,
    references: bool,
    batch_size: int | None,
    seed: int,
    out: str | None,
    as_json: bool,
    **_words: Any,
) -> None:
    """Compare two models' responses to the same prompts: win rate, length-controlled win rate, position consistency.

    A and B are folders written by `alignzoo eval`, or .jsonl files with "request" (or "prompt") and "response" in each
    line. Every pair is judged in both orders; the same command resumes what was interrupted.
    """
    from alignzoo.evaluate.verdicts.preferences import PREFERENCES
    from alignzoo_evaluation.pairs_run import Asked, compared_pairs, home_of

    if references == (b is not None):
        problem = "--references takes no B" if references else "what is A to be compared with?"
        raise UsageError(problem, hint="alignzoo judge pairs A B, or alignzoo judge pairs A --references")
    plan = _plan(ctx)
    folder = home_of(a) if out is None else local_path(out)
    asked = Asked(a, b, suite, batch_size, plan.settings.trust_remote_code, seed)
    try:
        with results_only():
            result = compared_pairs(_judge(plan), asked, folder, ConsoleReporter())
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted", hint=f"the same command resumes from what is in {folder}") from error
    if as_json:
        print_json(result)
    else:
        _show(result)
        print_lines(f"verdicts are kept in {folder / PREFERENCES}")


def _plan(ctx: click.Context) -> Plan:
    from alignzoo.plan.settings import EMBEDDED
    from alignzoo.session.subject import model_plan

    return model_plan(EMBEDDED, flag_layer(ctx).values)


def _judge(plan: Plan) -> Method:
    """The one preference judge.

    Raises:
        UsageError: none or several are named, or it compares nothing.
    """
    from alignzoo.evaluate.verdicts.judging import measures_of

    judges = plan.of("judge")
    known = "pairwise (a local model), endpoint-pairwise, reward, longer; `alignzoo ls judge` lists all"
    if len(judges) != 1:
        problem = f"{len(judges)} judges were named, and this takes one" if judges else "which judge?"
        raise UsageError(problem, hint=f"name one with --judge: {known}")
    if measures_of(judges[0]) != "preference":
        name = judges[0].card.name
        raise UsageError(f"judge {name!r} judges single responses and compares none", hint=f"--judge: {known}")
    return judges[0]


def _show(result: dict[str, Any]) -> None:
    title = f"A: {result['a']}, B: {result['b']}, judge: {result['judge']}"
    print_table(COLUMNS, [row for suite in result["suites"] for row in _rows(suite)], title)
    lines = [f"{suite['suite']}: {note}" for suite in result["suites"] for note in _notes(suite)]
    if result["limits"]:
        lines.append(f"judge {result['judge']}: {result['limits']}")
    print_lines("", *lines)


def _rows(suite: dict[str, Any]) -> list[list[str]]:
    rows = [(suite["suite"], suite["overall"])]
    rows += [(f"  {name}", figures) for name, figures in suite["categories"].items()]
    return [
        [
            name,
            str(figures["n"]),
            _estimate(figures["rate"]),
            _estimate(figures["controlled"]["rate"]),
            f"{figures['wins']}/{figures['ties']}/{figures['losses']}",
            f"{figures['consistency']['value']:.0%}",
            f"{figures['length_a']:.0f}",
            f"{figures['length_b']:.0f}",
        ]
        for name, figures in rows
    ]


def _notes(suite: dict[str, Any]) -> list[str]:
    figures = suite["overall"]
    notes = [note for note in (figures["controlled"]["note"],) if note]
    if figures["unparsed"]:
        low, high = figures["bounds"]
        notes.append(
            f"{figures['unparsed']} of {2 * figures['n']} verdicts could not be parsed and count as ties: the win rate "
            f"is {low:.3f} if all are losses, {high:.3f} if all are wins"
        )
    if figures["first_shown"] is not None and abs(figures["first_shown"] - 0.5) > 0.1:
        notes.append(f"the response shown first gets {figures['first_shown']:.0%} of the verdicts (ties half)")
    for side in ("a", "b"):
        if suite[f"only_{side}"]:
            notes.append(f"{suite[f'only_{side}']} responses of {side.upper()} have no counterpart and are left out")
    if suite["equal"]:
        notes.append(f"{suite['equal']} pairs of equal responses count as ties without being judged")
    return notes


def _estimate(figure: dict[str, Any]) -> str:
    return shown(figure["value"], figure["low"], figure["high"])
