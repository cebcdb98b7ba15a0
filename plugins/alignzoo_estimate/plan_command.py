"""``alignzoo plan``: estimates memory, work and time of a run from shapes alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.cli.flags import PlanCommand, plan_layers, recipe_option, run_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import ModelError, UsageError
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.settings import EMBEDDED

if TYPE_CHECKING:
    from alignzoo.plan.plan import Plan
    from alignzoo_estimate.estimate import Hardware
    from alignzoo_estimate.lengths import Data

_TOKENS = click.IntRange(min=1)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)


@cli_command("plan", cls=PlanCommand)
@run_options
@recipe_option
@click.option("--gpus", type=click.IntRange(min=1), metavar="N", help="GPUs [default: none, a run on this CPU]")
@click.option("--gpu-memory", type=_ABOVE_0, metavar="GIB", help="memory of each GPU (of one GPU without --gpus)")
@click.option(
    "--gpu-flops",
    type=_ABOVE_0,
    metavar="TFLOPS",
    help="throughput of each GPU in the run's precision, to estimate times",
)
@click.option(
    "--sharding",
    type=click.Choice(["none", "ddp", "fsdp"]),
    help="how GPUs share the work [default: ddp with several, else none]",
)
@click.option("--prompt-tokens", type=_TOKENS, metavar="N", help="mean prompt length [default: the data's, or 200]")
@click.option("--response-tokens", type=_TOKENS, metavar="N", help="mean response length [default: the data's, or 150]")
@click.option("--longest", type=_TOKENS, metavar="N", help="longest prompt + response [default: the mean]")
@click.option("--steps", type=_TOKENS, metavar="N", help="optimizer steps, to estimate the time of a run")
@click.option(
    "--measure", is_flag=True, help="measure this CPU's matrix-product throughput (2 seconds), to estimate times"
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, **words: Any) -> None:
    """Estimate parameters, memory by part, work and time of a run, and suggest changes if it does not fit.

    Takes the options of `alignzoo run`. --model may also be a config.json: only shapes are read, never weights.
    Lengths come from --data, or from --prompt-tokens and --response-tokens.

    alignzoo plan --model Qwen/Qwen3-8B --gpus 8 --gpu-memory 80
    """
    sharding = _sharding(words)
    layers = _layers(ctx)
    plan = require(resolve(layers, distributed=sharding))
    _check_words(plan, words)
    from alignzoo.model.positions import fitted
    from alignzoo_estimate.estimate import Model, Situation, estimate
    from alignzoo_estimate.shapes import read_config

    try:
        config = read_config(plan.settings.model, trust_remote_code=plan.settings.trust_remote_code)
        model = Model(config)
    except ModelError as error:  # nothing has run yet, so this is a usage error
        raise UsageError(error.message, hint=error.hint) from error
    plan = fitted(plan, config, ConsoleReporter())
    settings = plan.settings
    data = _data(plan, words, named=any("data" in layer.values for layer in layers if layer.origin != _ASSUMED))
    found = estimate(Situation(plan, model, _hardware(words, sharding, settings.precision == "bf16"), data))
    from alignzoo_estimate.advice import changes, largest, together

    advice = changes(found, layers) if found.fits is False else []
    path = together(found, layers) if found.fits is False and not any(one.estimate.fits for one in advice) else []
    from alignzoo_estimate.report import report

    facts = report(found, words["steps"] or settings.max_steps, advice, path, largest(found))
    if as_json:
        print_json(facts)
    else:
        _show(facts)


_ASSUMED = "plan"


def _layers(ctx: click.Context) -> list[Layer]:
    """The line's options, with placeholder data if none is named."""
    layers = plan_layers(ctx)
    named = {key for layer in layers for key in ("model", "data") if key in layer.values}
    return [Layer(_ASSUMED, {"data": EMBEDDED}), *layers] if named == {"model"} else layers


def _sharding(words: dict[str, Any]) -> str:
    gpus, sharding = words["gpus"] or 1, words["sharding"]
    if sharding is None:
        return "ddp" if gpus > 1 else "none"
    if sharding == "none" and gpus > 1:
        raise UsageError(f"--sharding none cannot be combined with --gpus {gpus}", hint="use ddp or fsdp")
    if sharding != "none" and gpus == 1:
        raise UsageError(f"--sharding {sharding} has no effect on one device", hint="set --gpus, or leave it out")
    return str(sharding)


def _check_words(plan: Plan, words: dict[str, Any]) -> None:
    cuda, settings = words["gpus"] is not None or words["gpu_memory"] is not None, plan.settings
    if not cuda and words["gpu_flops"] is not None:
        raise UsageError("--gpu-flops has no effect without --gpus", hint="add --gpus 1, or --measure for this CPU")
    if cuda and words["measure"]:
        raise UsageError("--measure measures this CPU, but the plan is for GPUs", hint="use --gpu-flops")
    if words["gpus"] is not None and plan.settings.batch_size % words["gpus"]:
        raise UsageError(
            f"--batch-size {plan.settings.batch_size} cannot be divided over {words['gpus']} GPUs",
            hint=f"use a multiple of {words['gpus']}",
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


def _hardware(words: dict[str, Any], sharding: Any, bf16: bool) -> Hardware:
    from alignzoo_estimate.compute import measured_rate
    from alignzoo_estimate.estimate import GIB, Hardware

    memory = words["gpu_memory"]
    if words["gpus"] is None and memory is None:
        own = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Hardware(1, False, float(own), measured_rate(bf16=bf16) if words["measure"] else None, "none")
    rate = words["gpu_flops"]
    return Hardware(
        words["gpus"] or 1,
        True,
        None if memory is None else memory * GIB,
        None if rate is None else rate * 1e12,
        sharding,
    )


def _show(facts: dict[str, Any]) -> None:
    from alignzoo_estimate.memory import GIB

    parameters, step, memory = facts["parameters"], facts["step"], facts["memory"]
    print_lines(f"{facts['model']}: {facts['sentence']}", "")
    kinds = [(name, parameters[name]) for name in ("embedding", "layers", "experts", "head", "other")]
    rows = [[name, _count(number)] for name, number in kinds if number]
    rows += [["total", _count(parameters["total"])]]
    if parameters["active"] != parameters["total"]:
        rows += [["active per token", _count(parameters["active"])]]
    print_table(["parameters", ""], [*rows, ["trained", _count(parameters["trained"])]])
    print_lines("")
    rows = [[name, f"{size / GIB:.2f}", f"{100 * size / memory['peak']:.0f} %"] for name, size in _by_size(memory)]
    rows.append(["total", f"{memory['peak'] / GIB:.2f}", "100 %"])
    print_table([f"at the {memory['at']}", "GiB", "share"], rows, f"peak memory of {_devices(facts)}")
    print_lines("", *_sentences(facts, step))
    print_lines("", *_verdict(facts))


def _by_size(memory: dict[str, Any]) -> list[tuple[str, float]]:
    return sorted(memory["parts"].items(), key=lambda part: -part[1])


def _devices(facts: dict[str, Any]) -> str:
    devices = facts["devices"]
    if devices["kind"] == "cpu":
        return "this CPU"
    return "the GPU" if devices["count"] == 1 else f"each of {devices['count']} GPUs ({devices['sharding']})"


def _sentences(facts: dict[str, Any], step: dict[str, Any]) -> list[str]:
    data, work, time = facts["data"], facts["work"], facts["time"]
    lengths = f"{data['prompt']} + {' | '.join(map(str, data['responses']))}"
    way = "packed" if step["packed"] else "padded"
    lines = [
        f"rows: {lengths} tokens ({data['source']}), the longest sequence {data['longest']}; {way}",
        f"a step: {step['rows_per_device']} rows per device in {step['micro_batches']} micro-batches of "
        f"{step['rows_per_micro_batch']}; {_passes(step['passes'])}",
        f"work: {work['total'] / 1e12:.3g} TFLOP per step and device",
    ]
    if time["step"] is None:
        return [
            *lines,
            "time: unknown without " + ("--measure" if facts["devices"]["kind"] == "cpu" else "--gpu-flops"),
        ]
    assumed = f"at {100 * time['utilisation']:.0f} % (assumed) of {time['rate'] / 1e12:.3g} TFLOP/s"
    whole = f", {duration(time['run'])} for {time['steps']} steps" if time["run"] is not None else ""
    return [*lines, f"time: {duration(time['step'])} per step{whole}, {assumed}"]


def _passes(number: float) -> str:
    return "one pass" if number == 1 else f"{number:g} passes{'' if number.is_integer() else ' on average'}"


def duration(seconds: float) -> str:
    """``0.42 s``, ``12 s``, ``3.5 min``, ``2.1 h``, ``4.0 days``."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.2g} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.1f} days"


def _verdict(facts: dict[str, Any]) -> list[str]:
    from alignzoo_estimate.memory import GIB

    peak, memory = facts["memory"]["peak"] / GIB, facts["devices"]["memory"]
    most, size = next(part for part in _by_size(facts["memory"]) if not part[0].startswith("allocator"))
    if facts["fits"] is None:
        return [f"needs {peak:.1f} GiB; set --gpu-memory to check whether that fits"]
    has = f"{memory / GIB:.1f} GiB"
    largest = facts["largest_micro_batch_tokens"]
    if facts["fits"]:
        return [
            f"fits: {peak:.1f} of {has}",
            f"largest micro-batch that fits: --tokens-per-micro-batch {largest}",
        ]
    lines = [f"does not fit: {peak:.1f} GiB of {has}; largest part: {most}, {size / GIB:.1f} GiB"]
    if largest is not None:
        lines.append(f"largest micro-batch that fits: --tokens-per-micro-batch {largest}")
    for title, listed in (("what to change:", facts["changes"]), ("together, one after the other:", facts["together"])):
        if listed:
            width = max(len(one["words"]) for one in listed)
            lines += ["", title]
            lines += [
                f"  {one['words']:{width}}  {one['peak'] / GIB:7.1f} GiB{'  fits' if one['fits'] else ''}"
                for one in listed
            ]
    if facts["together"] and not any(one["fits"] for one in (*facts["changes"], *facts["together"])):
        lines += ["", "even all of these together do not fit: use more or larger GPUs, or a smaller model"]
    return lines if facts["changes"] else [*lines, "no known change is enough: choose a smaller model"]


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
