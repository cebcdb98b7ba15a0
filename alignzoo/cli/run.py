"""``alignzoo run``: train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table, results_only
from alignzoo.cli.data_read import data_read
from alignzoo.cli.flags import PlanCommand, plan_layers, recipe_option, run_options, split_trust
from alignzoo.cli.launch import Launch, launch_of, launch_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.distributed.launch import check_shares, distributed_backend, is_first_rank, is_worker, world_size
from alignzoo.distributed.workers import stop_with_parent
from alignzoo.errors import UsageError
from alignzoo.plan.extensions import data_of
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import plan_to_dict, read_plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import raise_first, require, resolve
from alignzoo.plan.started import stated_values
from alignzoo.plugin.registry import registry
from alignzoo.report import Reporter


@cli_command("run", cls=PlanCommand)
@run_options
@recipe_option
@click.option("--resume", metavar="RUN", help="resume the run in this folder with its own plan")
@click.option("--dry-run", is_flag=True, help="check that everything exists, show the plan and stop")
@launch_options
@json_option
@click.pass_context
def command(ctx: click.Context, resume: str | None, **_words: Any) -> None:
    """Train a model on preference data.

    Without --model and --data, it trains the embedded model on the embedded data with the settings of the recipe
    `sandbox`. The run folder, printed at the end, contains the plan, metrics, results, checkpoints and the model.

    Name methods together with --help to see their options: alignzoo run --loss ipo --help
    """
    if is_worker():
        stop_with_parent()
    launch = launch_of(ctx)
    if launch.note is not None:
        _reporter().note(launch.note)
    with launch.environment():
        if resume is not None:
            _resume(ctx, Path(resume), launch)
        else:
            _run(ctx, launch)


def _run(ctx: click.Context, launch: Launch) -> None:
    dry_run, as_json = ctx.params["dry_run"], ctx.params["as_json"]
    layers = plan_layers(ctx)
    if any(layer.stages for layer in layers):
        _run_stages(ctx, layers, launch)
        return
    plan = require(resolve(layers, distributed=distributed_backend()))
    registry().check_files()
    if dry_run:
        check_shares(plan.settings.batch_size, world_size())
        _check(plan)
        _show_plan(plan, as_json)
        return
    if launch.place is not None:
        _start(ctx, launch, [plan], Path(plan.settings.out) if plan.settings.out else None)
        return
    from alignzoo.runs.execute import execute

    reporter = _reporter()
    with results_only():
        result = execute(plan, reporter=reporter, alone=True)
    _finish(result, as_json)


def _start(ctx: click.Context, launch: Launch, plans: Sequence[Plan], folder: Path | None) -> None:
    """Start the workers of a launch, for plans that could start here."""
    from alignzoo.runs.claim import check_free
    from alignzoo.runs.precheck import check_start

    with results_only():
        for plan in plans:
            check_start(plan, launch.world)
        if folder is not None and ctx.params["resume"] is None:
            check_free(folder)
    launch.start(ctx, folder)


def _resume(ctx: click.Context, folder: Path, launch: Launch) -> None:
    trusting, others = split_trust(ctx)
    recipe, dry_run = ctx.params["recipe"], ctx.params["dry_run"]
    _refuse([*(f"--{key}" for key in others), *(["--recipe"] * bool(recipe)), *(["--dry-run"] * dry_run)])
    from alignzoo.runs.execute import resume
    from alignzoo.stages.execute import is_staged, resume_stages

    staged = is_staged(folder)
    if launch.place is not None:
        _start(ctx, launch, [] if staged else [read_plan(folder, trust_remote_code=trusting)], folder)
        return
    again: Any = resume_stages if staged else resume
    with results_only():
        resumed = again(folder, reporter=_reporter(), trust_remote_code=trusting)
    _finish(resumed, ctx.params["as_json"])


def _check_given(plan: Plan, folder: Path) -> None:
    """As :func:`_check`, but for what an earlier stage in ``folder`` will write."""
    from alignzoo.cli.existence import check_existence

    problems, _ = check_existence(plan)
    missing = [problem for problem in problems if str(folder) not in problem.message]
    if missing:
        raise_first(missing)


def _run_stages(ctx: click.Context, layers: Sequence[Layer], launch: Launch) -> None:
    from alignzoo.stages.execute import execute_stages, folder_of
    from alignzoo.stages.parse import parse_stages

    as_json = ctx.params["as_json"]
    registry().check_files()
    if not ctx.params["dry_run"] and launch.place is None:
        with results_only():
            result = execute_stages(layers, reporter=_reporter())
        _finish(result, as_json)
        return
    folder = folder_of(layers, None)  # once: its name has the time in it
    stages = parse_stages(layers, folder)
    if not ctx.params["dry_run"]:
        named = any("out" in layer.values for layer in layers)
        _start(ctx, launch, [stage.plan for stage in stages if stage.plan is not None], folder if named else None)
        return
    for stage in stages:
        if stage.plan is not None:
            _check_given(stage.plan, folder)
    if as_json:
        plans = [(stage, plan_to_dict(stage.plan) if stage.plan is not None else None) for stage in stages]
        print_json(
            {"stages": [{"name": s.name, "action": s.action, "does": s.sentence(), "plan": plan} for s, plan in plans]}
        )
        return
    print_table(["stage", "does"], [[stage.name, stage.sentence()] for stage in stages])


def _reporter() -> Reporter:
    return ConsoleReporter() if is_first_rank() else Reporter()


def _refuse(given: Sequence[str]) -> None:
    if given:
        raise UsageError(
            f"--resume cannot be combined with {', '.join(given)}: a resumed run keeps its plan",
            hint="leave them out, or start a new run with --out",
        )


def _finish(result: Any, as_json: bool) -> None:
    if not is_first_rank():
        return
    if as_json:
        print_json(result.to_dict())
    else:
        print_lines(str(result.folder))


def _check(plan: Plan) -> None:
    """Reject a plan whose model, data or optimizer does not exist; note what was not checked."""
    from alignzoo.cli.existence import check_existence

    problems, unchecked = check_existence(plan)
    if problems:
        raise_first(problems)
    if plan.settings.eval_suite:
        from alignzoo.runs.generated import asked_suites

        asked_suites(plan)
    if data_of(plan.settings.data, registry()) is None:  # a plugin's data has a known shape
        unchecked += data_read(plan)
    for note in unchecked:
        _reporter().note(note)


def _show_plan(plan: Plan, as_json: bool) -> None:
    facts = plan_to_dict(plan)
    if as_json:
        print_json(facts)
        return
    rows = [[name, _text(stated["value"]), stated["from"]] for name, stated in stated_values(facts).items()]
    print_lines(f"alignzoo run {facts['sentence']}", *facts["notes"], "")
    print_table(["option", "value", "from"], rows)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
