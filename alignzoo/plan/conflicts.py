"""What cannot work together in a plan, each with what to change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alignzoo.contract.card import PROVIDED
from alignzoo.errors import AlignzooError, IncompatibleError, UsageError
from alignzoo.plan.extensions import data_of, evaluated_data, evaluator_of, judge_of
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo.plugin.registry import Registry

UNSUPPORTED = {
    "fsdp1": ("FSDP 1", "it flattens weights, so that no controller can tell them apart"),
    "deepspeed": ("DeepSpeed", "its backward pass steps the optimizer, and a controller takes several"),
}
"""Launches that no method runs under, with their names and why."""
WHOLE_WEIGHTS_ONLY = ("adafactor", "rprop", "adamw8bit")
"""Optimizers that fail on the shards of FSDP2, or were not tried on them."""


def missing_extensions(settings: Settings, methods: Registry) -> list[AlignzooError]:
    """Evaluators, judges and observers that no plugin brings, or a broken one; models and data that several bring."""
    problems: list[AlignzooError] = []
    lookups: list[Callable[[], object]] = [
        lambda: methods.named_extension("model", settings.model),
        lambda: methods.named_extension("data", settings.eval_data),
        lambda: judge_of(settings, methods),
        *(partial(methods.find_extension, "observer", name) for name in settings.observe),
    ]
    for name in sorted({name for name in settings.observe if settings.observe.count(name) > 1}):
        problems.append(UsageError(f"--observe names {name} twice", hint="name each observer once"))
    for look_up in lookups:
        try:
            look_up()
        except AlignzooError as error:
            problems.append(error)
    return problems


def conflicts(plan: Plan, distributed: str, known: Registry) -> list[AlignzooError]:
    """What cannot work together, each with what to change."""
    return [*_rivals(plan), *_labels(plan), *_needs(plan), *_launch(plan, distributed), *_unused_settings(plan, known)]


def _rivals(plan: Plan) -> list[AlignzooError]:
    """Methods of which a run has room for one."""
    problems: list[AlignzooError] = []
    for kind, stack in (("robust", plan.robust), ("geometry", plan.controllers)):
        names = [method.card.name for method in stack]
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.append(IncompatibleError(f"--{kind} {name} is given twice", hint="name each method once"))
    aggregating = [method.card.name for method in plan.robust if method.card.aggregates]
    if len(set(aggregating)) > 1:
        problems.append(
            IncompatibleError(
                f"{' and '.join(aggregating)} each replace the mean over the step, and only one can",
                hint=f"keep one of --robust {' / --robust '.join(aggregating)}",
            )
        )
    averaging = [method.card.name for method in plan.companions if method.card.averages]
    if len(set(averaging)) > 1:
        problems.append(
            IncompatibleError(
                f"{' and '.join(averaging)} would each be evaluated and saved in the weights' place, and only one can",
                hint=f"keep one of --geometry {' / --geometry '.join(averaging)}",
            )
        )
    return problems


def _labels(plan: Plan) -> list[AlignzooError]:
    """Methods that look at the opposite label, or put other labels in the data's place."""
    problems: list[AlignzooError] = []
    relabelling = list(dict.fromkeys(method.card.name for method in plan.methods if method.card.relabels))
    if len(relabelling) > 1:
        problems.append(
            IncompatibleError(
                f"{' and '.join(relabelling)} each put labels of their own in the data's place, and only one can",
                hint=f"keep one of {', '.join(relabelling)}",
            )
        )
    layers = (*plan.controllers, *plan.robust)  # from the innermost one
    inside = next((i for i, method in enumerate(layers) if method.card.relabels), len(layers))
    for method in layers[inside + 1 :]:
        if "swap" in method.needs and not method.card.relabels:
            name, within = method.card.name, layers[inside].card
            first = f", or name it before: --robust {name} --robust {within.name}" if within.kind == "robust" else ""
            problems.append(
                IncompatibleError(
                    f"robust {name!r} would do nothing around {within.name!r}, whose value is the same under the "
                    "opposite label",
                    hint=f"leave out --robust {name}{first}",
                )
            )
    for method in plan.methods:
        if "swap" in method.needs and not plan.loss.card.swaps:
            problems.append(
                IncompatibleError(
                    f"{method.card.kind} {method.card.name!r} evaluates pairs under the opposite label, and loss "
                    f"{plan.loss.card.name!r} says that it has no meaning there (swaps=False)",
                    hint=f"choose another loss, such as --loss dpo, or leave out --{method.card.kind} "
                    f"{method.card.name}",
                )
            )
    return problems


def _needs(plan: Plan) -> list[AlignzooError]:
    """Needs of methods that nothing here can meet."""
    return [
        IncompatibleError(
            f"{method.card.kind} {method.card.name!r} needs {', '.join(lacking)}, which no part of this alignzoo "
            "provides",
            hint="choose another method, or upgrade alignzoo",
        )
        for method in plan.methods
        if (lacking := sorted(method.needs - PROVIDED))
    ]


def _launch(plan: Plan, distributed: str) -> list[AlignzooError]:
    """What does not run on the ranks of this launch."""
    if distributed in UNSUPPORTED:
        name, why = UNSUPPORTED[distributed]
        return [
            IncompatibleError(
                f"runs under {name} are not supported: {why}",
                hint="shard with FSDP2 (`accelerate launch --use_fsdp --fsdp_version 2`), or launch with --multi_gpu",
            )
        ]
    if distributed != "fsdp":
        return []
    problems: list[AlignzooError] = [
        IncompatibleError(
            f"geometry {method.card.name!r} does not work on sharded weights: its card does not say `sharded`",
            hint="launch with plain data parallelism (`accelerate launch --multi_gpu`), or choose another geometry",
        )
        for method in plan.controllers
        if not method.card.sharded
    ]
    if plan.settings.quantize != "none":
        problems.append(
            IncompatibleError(
                f"--quantize {plan.settings.quantize} was not tried on sharded weights",
                hint="launch with plain data parallelism (`accelerate launch --multi_gpu`), or leave it out",
            )
        )
    optimizer = plan.settings.optimizer.lower()
    if optimizer in WHOLE_WEIGHTS_ONLY:
        problems.append(
            IncompatibleError(
                f"--optimizer {optimizer} does not work on sharded weights",
                hint="choose another, such as adamw, or launch with plain data parallelism",
            )
        )
    return problems


def _unused_settings(plan: Plan, known: Registry) -> list[AlignzooError]:
    """Settings that were given but that this run would ignore."""
    settings, problems = plan.settings, list[AlignzooError]()

    def unused(name: str, because: str, hint: str) -> None:
        if name in plan.origins:
            negated = "no-" if getattr(settings, name) is False else ""
            said = f"--{negated}{Settings.flag(name)}"
            problems.append(UsageError(f"{said} does nothing here: {because}", hint=hint))

    if settings.lora_r == 0:
        unused("lora_alpha", "--lora.r is 0, so there is no adapter", "add --lora.r 8, or leave it out")
    given = plan.origins.get("micro_batch_size")
    if settings.tokens_per_micro_batch is not None and given == plan.origins.get("tokens_per_micro_batch"):
        unused("micro_batch_size", "--tokens-per-micro-batch decides", "leave one of them out")
    if settings.eval_data is not None:
        unused("eval_share", "--eval-data names the held-out pairs", "leave one of them out")
    else:
        unused("eval_data_split", "there is no --eval-data", "leave it out")
        unused("eval_data_format", "there is no --eval-data", "leave it out")
    data, evaluator = data_of(settings.data, known), evaluator_of(settings, known)
    if data is not None:
        for name in ("data_split", "data_format", *(("eval_share",) if data.held_out else ())):
            unused(name, f"--data {data.name} has its own splits and layout", "name another --data, or leave it out")
        if data.clean:
            unused("data_strict", f"--data {data.name} has no malformed rows", "name another --data, or leave it out")
    held_out = data_of(settings.eval_data, known)
    if held_out is not None:
        for name in ("eval_data_split", "eval_data_format"):
            unused(name, f"--eval-data {held_out.name} has its own splits and layout", "leave it out")
        if not held_out.held_out:
            problems.append(
                UsageError(f"--eval-data {held_out.name} has no validation split", hint="name other held-out data")
            )
    if evaluator is None:
        hint = f"leave it out, or run on --data {' / '.join(evaluated_data(known))}"
        for name in ("samples", "judge"):
            unused(name, f"no answers are generated on --data {settings.data}", hint)
    elif not settings.samples:
        unused("judge", "--no-samples leaves no answers to judge", "leave one of them out")
    elif evaluator.judge is None:
        unused("judge", f"the evaluator of --data {settings.data} takes no judge", "leave it out")
    if not (data and data.held_out) and settings.eval_data is None and settings.eval_share == 0:
        for name in ("eval_every", "eval_pairs"):
            unused(name, "no pairs are held out", "raise --eval-share, or name --eval-data")
    probing = [method.card for method in plan.methods if "probe" in method.needs]
    if settings.probe_share == 0 and probing:
        kind, named = probing[0].kind, "probe" in probing[0].options.model_fields
        problems.append(
            UsageError(
                f"{kind} {probing[0].name!r} needs a safety probe, and --probe.share 0 leaves it no pairs",
                hint=f"raise --probe.share{f', or name a saved probe: --{kind}.probe DIR' if named else ''}",
            )
        )
    return problems
