"""``alignzoo plan``: estimates memory, work and time of a run from shapes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json
from alignzoo.cli.flags import PlanCommand, plan_layers, recipe_option, run_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import ModelError, UsageError
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.settings import EMBEDDED
from alignzoo_estimate.machines import gpu_options, hardware_of, on_gpus, sharding_of
from alignzoo_estimate.show import show

if TYPE_CHECKING:
    from alignzoo.plan.plan import Plan
    from alignzoo_estimate.lengths import Data

_TOKENS = click.IntRange(min=1)


@cli_command("plan", cls=PlanCommand)
@run_options
@recipe_option
@gpu_options
@click.option("--prompt-tokens", type=_TOKENS, metavar="N", help="mean prompt length [default: the data's, or 200]")
@click.option("--response-tokens", type=_TOKENS, metavar="N", help="mean response length [default: the data's, or 150]")
@click.option("--longest", type=_TOKENS, metavar="N", help="longest prompt + response [default: the mean]")
@click.option("--steps", type=_TOKENS, metavar="N", help="optimizer steps, to estimate the time of a run")
@click.option(
    "--measure", is_flag=True, help="measure this CPU's matrix-product throughput (2 seconds), to estimate times"
)
@click.option("--controllers", is_flag=True, help="also list what each geometry controller would take")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, **words: Any) -> None:
    """Estimate parameters, memory by part, work and time of a run, and suggest changes if it does not fit.

    Takes the options of `alignzoo run`. --model may also be a config.json: only shapes are read, never weights.
    Lengths come from --data, or from --prompt-tokens and --response-tokens.

    alignzoo plan --model Qwen/Qwen3-8B --gpus 8 --gpu h100 --sharding fsdp2
    """
    sharding = sharding_of(words)
    layers = _layers(ctx)
    plan = require(resolve(layers, distributed=sharding))
    _check_words(plan, words)
    from alignzoo.model.positions import fitted
    from alignzoo_estimate.estimate import Model, Situation, estimate
    from alignzoo_estimate.knobs import computes_in_bf16
    from alignzoo_estimate.shapes import read_config

    try:
        config = read_config(plan.settings.model, trust_remote_code=plan.settings.trust_remote_code)
        model = Model(config)
    except ModelError as error:  # nothing has run yet, so this is a usage error
        raise UsageError(error.message, hint=error.hint) from error
    plan = fitted(plan, config, ConsoleReporter())
    settings = plan.settings
    data = _data(plan, words, named=any("data" in layer.values for layer in layers if layer.origin != _ASSUMED))
    hardware = hardware_of(words, sharding, computes_in_bf16(plan, cuda=on_gpus(words)))
    found = estimate(Situation(plan, model, hardware, data))
    from alignzoo_estimate.advice import changes, largest, together

    advice = changes(found, layers) if found.fits is False else []
    paths = together(found, layers) if found.fits is False else {}
    from alignzoo_estimate.controllers import by_controller
    from alignzoo_estimate.report import report

    facts = report(found, words["steps"] or settings.max_steps, advice, paths, largest(found))
    if words["controllers"]:
        facts["controllers"] = [vars(row) for row in by_controller(found.situation, layers)]
    if as_json:
        print_json(facts)
    else:
        show(facts)


_ASSUMED = "plan"


def _layers(ctx: click.Context) -> list[Layer]:
    """The line's options, with placeholder data if none is named."""
    layers = plan_layers(ctx)
    named = {key for layer in layers for key in ("model", "data") if key in layer.values}
    return [Layer(_ASSUMED, {"data": EMBEDDED}), *layers] if named == {"model"} else layers


def _check_words(plan: Plan, words: dict[str, Any]) -> None:
    cuda, settings = on_gpus(words), plan.settings
    if cuda and words["measure"]:
        raise UsageError("--measure measures this CPU, but the plan is for GPUs", hint="use --gpu or --gpu-flops")
    devices = (words["gpus"] or 1) * (words["nodes"] or 1)
    if settings.batch_size % devices:
        raise UsageError(
            f"--batch-size {settings.batch_size} cannot be divided over {devices} GPUs",
            hint=f"use a multiple of {devices}",
        )
    if settings.quantize != "none" and not settings.lora_r:
        raise UsageError(f"--quantize {settings.quantize} needs a LoRA adapter to train", hint="add --lora.r 16")
    if settings.quantize != "none" and not cuda:
        raise UsageError(f"--quantize {settings.quantize} needs GPUs", hint="add --gpus, or leave it out")
    if settings.quantize != "none" and settings.model.endswith(".gguf"):
        raise UsageError(
            f"--quantize {settings.quantize} cannot be combined with a .gguf model", hint="use the original model"
        )
    from alignzoo.train.optim import EIGHT_BIT, optimizer_class

    if not (cuda and settings.optimizer.lower() == EIGHT_BIT):
        optimizer_class(settings.optimizer)


def _data(plan: Plan, words: dict[str, Any], *, named: bool) -> Data:
    from alignzoo_estimate.lengths import of_data, stated

    given = [words[name] for name in ("prompt_tokens", "response_tokens", "longest")]
    said = [value is not None for value in given]
    if any(said) and named and not (said[0] and said[1]):
        raise UsageError(
            "lengths come from the data, so --longest or only one of the two means cannot be set",
            hint="set both --prompt-tokens and --response-tokens to replace the data's lengths, or neither",
        )
    if any(said) or not (named or plan.settings.model == EMBEDDED):
        return stated(plan, *given)
    try:
        return of_data(plan, ConsoleReporter())
    except ModelError as error:
        raise UsageError(
            error.message, hint="without the model's tokenizer, set lengths: --prompt-tokens, --response-tokens"
        ) from error
