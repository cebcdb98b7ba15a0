"""``alignzoo sweep``: a set of runs over a grid and seeds, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, results_only
from alignzoo.cli.flags import plan_layers, recipe_option, run_options, split_trust
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import UsageError
from alignzoo.plan.recipe import Layer
from alignzoo.plugin.registry import registry
from alignzoo.sweeps.launchers import NAMES
from alignzoo.sweeps.spec import Spec, spec_of
from alignzoo.sweeps.words import typed_axes, typed_exclusion, typed_seeds
from alignzoo_sweep.options import SweepCommand
from alignzoo_sweep.search_options import refuse_or_search, search, search_options
from alignzoo_sweep.show import report, show

_OWN = ("grid", "zip", "exclude", "seeds", "skip_incompatible", "keep_models", "dry_run", "search")


@cli_command("sweep", cls=SweepCommand)
@run_options
@recipe_option
@click.option("--grid", multiple=True, metavar="WORD=V1,V2", help="axis to cross with the others (repeatable)")
@click.option("--zip", multiple=True, metavar="WORD=V1,V2", help="axis that advances with the other --zip (repeatable)")
@click.option("--exclude", multiple=True, metavar="WORD=V,…", help="combination of values to leave out (repeatable)")
@click.option("--seeds", metavar="N|LIST", help="number of seeds from 0, or a list such as 0,3,8 [default: --seed]")
@click.option("--skip-incompatible", is_flag=True, help="leave out combinations that cannot run, and list them")
@click.option("--launcher", metavar=f"[{'|'.join(NAMES)}]", help="what starts the workers [default: local]")
@click.option("--launcher-option", multiple=True, metavar="KEY=VALUE", help="option of the launcher (repeatable)")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="runs at a time [default: one per device]")
@click.option("--keep-models", is_flag=True, help="keep the model and checkpoints of finished runs")
@click.option("--retry-failed", is_flag=True, help="run failed cells again")
@click.option("--resume", metavar="SWEEP", help="resume the sweep in this folder as it was started")
@search_options
@click.option("--dry-run", is_flag=True, help="check all runs, show them with their cost and disk space, and stop")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, resume: str | None, **words: Any) -> None:
    """Run a recipe over a grid of methods, options and seeds.

    Takes the options of `alignzoo run`, and from a recipe `grid:`, `zip:`, `exclude:` and `seeds:`. The same command
    line resumes a sweep in its --out folder; finished runs are skipped, failed ones are listed.

    alignzoo sweep sandbox --seeds 5 --grid loss=dpo,simpo --grid geometry=plain,sam --out runs/first
    """
    trusting, others = split_trust(ctx)
    spec, folder = None, Path(resume or ".")
    if resume is not None:
        given = [*(f"--{key}" for key in others), *(["--recipe"] * bool(ctx.params["recipe"]))]
        given += [f"--{name.replace('_', '-')}" for name in _OWN if words[name]]
        if given:
            raise UsageError(
                f"--resume cannot be combined with {', '.join(given)}: a sweep stays as it was started",
                hint="leave them out, or start a new sweep with another --out",
            )
    else:
        spec, folder = _asked(plan_layers(ctx), words)
    registry().check_files()
    if spec is not None and refuse_or_search(spec, words):
        ctx.exit(search(spec, folder, words, as_json=as_json, trusting=trusting))
    if spec is not None and _plans(spec, folder, words, as_json):
        return
    from alignzoo.sweeps.execute import run_sweep

    with results_only():
        sweep = run_sweep(
            folder,
            spec,
            launcher=words["launcher"] or "local",
            workers=words["workers"],
            retry=words["retry_failed"],
            skip_incompatible=words["skip_incompatible"],
            keep_models=words["keep_models"],
            trust_remote_code=trusting,
            options=_launcher_options(words["launcher_option"]),
            reporter=ConsoleReporter(),
        )
    facts = report(sweep, trust_remote_code=trusting)
    if as_json:
        print_json(facts)
    else:
        show(facts)
        print_lines(str(folder))
    if facts["failed"]:
        ctx.exit(1)


def _asked(layers: Sequence[Layer], words: dict[str, Any]) -> tuple[Spec, Path]:
    """What the line asks for, and the folder of the sweep."""
    out = next((layer.values["out"] for layer in reversed(layers) if "out" in layer.values), None)
    seeds = words["seeds"]
    if seeds is not None and "seed" in layers[-1].values:
        raise UsageError("--seed and --seeds are both set", hint="list all seeds: --seeds 3,4,5")
    spec = spec_of(
        [
            Layer(one.origin, {k: v for k, v in one.values.items() if k != "out"}, one.notes, one.stages)
            for one in layers
        ],
        grid=typed_axes(words["grid"], "--grid"),
        zipped=typed_axes(words["zip"], "--zip"),
        exclude=[typed_exclusion(text) for text in words["exclude"]],
        seeds=None if seeds is None else typed_seeds(seeds),
    )
    return spec, Path(out) if out is not None else _default_folder(spec)


def _default_folder(spec: Spec) -> Path:
    named = [layer.origin.removeprefix("recipe:") for layer in spec.layers if layer.origin.startswith("recipe:")]
    name = Path(named[-1]).stem if named else "-".join(word.replace(".", "-") for word in spec.grid) or "seeds"
    return Path("sweeps") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _plans(spec: Spec, folder: Path, words: dict[str, Any], as_json: bool) -> bool:
    """Check all runs before any starts; True if that was all, with ``--dry-run``."""
    from alignzoo.cli.existence import check_existence
    from alignzoo.plan.resolve import raise_first
    from alignzoo.sweeps.plans import check
    from alignzoo.sweeps.spec import expand

    axes, cells = expand(spec)
    checked = check(spec.layers, axes, cells, skip_incompatible=words["skip_incompatible"])
    missing = {str(problem): problem for plan in checked.plans.values() for problem in check_existence(plan)[0]}
    if missing:
        raise_first(list(missing.values()))
    if words["dry_run"]:
        from alignzoo_sweep.dry_run import dry_run, show_dry_run

        facts = dry_run(checked, folder, workers=words["workers"], keep_models=words["keep_models"])
        if as_json:
            print_json(facts)
        else:
            show_dry_run(facts)
    else:
        for label, reason in checked.skipped.items():
            ConsoleReporter().warn(f"skipping {label}: {reason}")
    return bool(words["dry_run"])


def _launcher_options(texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"--launcher-option {text}: not KEY=VALUE")
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}
