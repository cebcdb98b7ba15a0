"""Conflicts in a plan, each with a suggested fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from alignzoo.base.suggest import nearest
from alignzoo.contract.card import PROVIDED
from alignzoo.contract.kinds import KINDS, Kind
from alignzoo.errors import AlignzooError, IncompatibleError, UnknownNameError, UsageError
from alignzoo.plan.extensions import data_of, evaluated_data, evaluator_of, judge_of
from alignzoo.plan.judges import unused_judges
from alignzoo.plan.launches import launch_conflicts
from alignzoo.plan.plan import Method, Plan
from alignzoo.plan.settings import Settings
from alignzoo.plugin.faults import exists
from alignzoo.plugin.registry import Registry

GUIDES: tuple[Literal["guide", "contrast"], ...] = ("guide", "contrast")
"""Frozen models besides the reference: the need is the name of the setting."""
_ONCE_ONLY = {
    "activation_checkpointing": "recomputed activations",
    "activation_offloading": "activations that are kept on the host",
    "compile": "compiled layers",
}
"""Settings under which nothing can be differentiated twice, in words."""
Methods = Mapping[str, tuple[Method, ...]]
"""The methods of a run by kind; every kind is a key."""


def missing_extensions(settings: Settings, methods: Registry) -> list[AlignzooError]:
    """Evaluators, judges and observers that are missing or broken; models and data that several plugins provide, or
    whose name is misspelt."""
    problems: list[AlignzooError] = []
    lookups: list[Callable[[], object]] = [
        lambda: _named("model", "model", settings.model, methods),
        *(partial(_named, "model", flag, getattr(settings, flag), methods) for flag in GUIDES),
        lambda: _named("data", "data", settings.data, methods),
        lambda: _named("data", "eval-data", settings.eval_data, methods),
        lambda: evaluator_of(settings, methods),
        lambda: judge_of(settings, methods),
        *(partial(methods.find_extension, "observer", name) for name in settings.observe),
    ]
    for name in sorted({name for name in settings.observe if settings.observe.count(name) > 1}):
        problems.append(UsageError(f"--observe names {name} twice", hint="name each observer once"))
    for look_up in lookups:
        try:
            look_up()
        except AlignzooError as error:
            if error.message not in [problem.message for problem in problems]:
                problems.append(error)
    return problems


def _named(kind: Literal["model", "data"], flag: str, name: str | None, methods: Registry) -> None:
    """Refuse a misspelt name before the hub is asked for it, which takes a minute without a network.

    Raises:
        UsageError: no plugin provides the name, but one that is close to it; or several provide it.
    """
    if name is None or methods.named_extension(kind, name) is not None or exists(name):
        return
    if "/" in name or "." in name:  # a path or a hub id
        return
    near = nearest(name, [card.name for _, card in methods.extensions(kind)])
    if near:
        raise UnknownNameError(
            f"--{flag} {name}: no plugin provides it, and there is no such file or folder",
            hint=f"did you mean {' or '.join(near)}? Write a hub id as owner/name",
        )


def conflicts(plan: Plan, distributed: str, known: Registry, *, trains: bool = True) -> list[AlignzooError]:
    """All conflicts, each with a suggested fix.

    Args:
        trains: whether the plan is of a run; otherwise nothing is said of data and training.
    """
    between = conflicts_between(plan.methods, plan.settings, distributed)
    if not trains:
        return [*launch_conflicts(plan, distributed), *between]
    own = (*_frozen_weights(plan), *_guides(plan), *_validation(plan.settings), *_unused_settings(plan, known))
    return [*launch_conflicts(plan, distributed), *between, *own]


def conflicts_between(methods: Methods, settings: Settings, distributed: str) -> list[AlignzooError]:
    """The conflicts of the methods, with one another and with what every method of the run has to put up with."""
    problems: list[AlignzooError] = []
    for kind in KINDS.values():
        problems += _rivals(kind, methods[kind.name])
        if kind.conflicts is not None:
            problems += kind.conflicts(methods, distributed)
    every = [method for some in methods.values() for method in some]
    return [*problems, *_needs(every), *_twice(every, settings, distributed)]


def _rivals(kind: Kind, methods: Sequence[Method]) -> list[AlignzooError]:
    """Several methods where a run can have only one."""
    names = [method.card.name for method in methods]
    repeated = sorted({name for name in names if names.count(name) > 1})
    problems: list[AlignzooError] = [
        IncompatibleError(f"--{kind.name} {name} is named twice", hint="name each method once") for name in repeated
    ]
    groups = {
        does: [m.card.name for m in methods if getattr(m.card, fact, False)] for fact, does in kind.rivals.items()
    }
    if kind.role:
        groups[kind.role] = [method.card.name for method in methods if not getattr(method.card, "companion", False)]
    for does, rivals in groups.items():
        if len(set(rivals)) > 1:
            problems.append(
                IncompatibleError(
                    f"{' and '.join(rivals)} each {does}, but only one can",
                    hint=f"keep one of --{kind.name} {f' / --{kind.name} '.join(rivals)}",
                    rule=f"only one can {does}",
                )
            )
    return problems


def _needs(methods: Sequence[Method]) -> list[AlignzooError]:
    """Needs that nothing here can meet."""
    return [
        IncompatibleError(
            f"{method.card.kind} {method.card.name!r} needs {', '.join(lacking)}, which this alignzoo does not provide",
            hint="choose another method, or upgrade alignzoo",
            rule=f"it needs {', '.join(lacking)}, which this alignzoo does not provide",
        )
        for method in methods
        if (lacking := sorted(method.needs - PROVIDED))
    ]


def _twice(methods: Sequence[Method], settings: Settings, distributed: str) -> list[AlignzooError]:
    """What cannot be differentiated twice, beside a method that needs it."""
    name = next((m.card.name for m in methods if "embedding-gradients" in m.needs), None)
    if name is None:
        return []
    why = f"{name!r} differentiates gradients by the input embeddings once more, which "
    problems: list[AlignzooError] = []
    if distributed == "fsdp":
        problems.append(
            IncompatibleError(
                f"{why}sharded weights (FSDP2) do not allow",
                hint="use plain data parallelism (--parallel ddp), or choose another method",
                rule="sharded weights (FSDP2) do not allow a second derivative",
            )
        )
    for setting, what in _ONCE_ONLY.items():
        if getattr(settings, setting):
            flag = f"--{Settings.flag(setting)}"
            problems.append(
                IncompatibleError(
                    f"{why}{what} ({flag}) do not allow",
                    hint="leave it out, or choose another method; a lower --micro-batch-size saves memory, too",
                    rule=f"{flag} does not allow a second derivative",
                )
            )
    return problems


def _frozen_weights(plan: Plan) -> list[AlignzooError]:
    """Narrow weights under wide products, and a reference that moves over a base in 4 bits."""
    problems: list[AlignzooError] = []
    if plan.settings.weights == "bf16" and plan.settings.precision == "fp32":
        said = "--weights bf16 needs bf16 products, and --precision is fp32"
        problems.append(UsageError(said, hint="add --precision bf16, or leave --weights out"))
    for method in plan.of("geometry") if plan.settings.quantize != "none" else ():
        if getattr(method.card, "moves_reference", False):
            said = (
                f"geometry {method.card.name!r} mixes weights into the reference, which a quantised base does not allow"
            )
            problems.append(IncompatibleError(said, hint="leave out --quantize, or the method"))
    return problems


def _guides(plan: Plan) -> list[AlignzooError]:
    """Guide models that are needed and not given, or given and not read."""
    problems: list[AlignzooError] = []
    for name in GUIDES:
        readers = [method.card for method in plan.all_methods if name in method.needs]
        given = getattr(plan.settings, name)
        if readers and given is None:
            problems.append(
                UsageError(
                    f"{readers[0].kind} {readers[0].name!r} reads the log-probs of a {name} model, and there is none",
                    hint=f"name it: --{name} MODEL (a hub id, or a folder such as the model/ of a run)",
                )
            )
        if given is not None and not readers:
            problems.append(
                UsageError(f"--{name} has no effect here: no method of this run reads it", hint="leave it out")
            )
    return problems


def _validation(settings: Settings) -> list[AlignzooError]:
    """Figures to report in a run for choosing options."""
    if not (settings.validation and settings.eval_suite):
        return []
    said = "--validation is for choosing options, and --eval-suite gives figures to report"
    return [UsageError(said, hint="leave one of them out")]


def _unused_settings(plan: Plan, known: Registry) -> list[AlignzooError]:
    """Settings that this run would ignore."""
    settings, problems = plan.settings, list[AlignzooError]()

    def unused(name: str, because: str, hint: str) -> None:
        if name in plan.origins:
            negated = "no-" if getattr(settings, name) is False else ""
            said = f"--{negated}{Settings.flag(name)}"
            problems.append(UsageError(f"{said} has no effect here: {because}", hint=hint))

    mover = next((m.card.name for m in plan.of("geometry") if getattr(m.card, "moves_reference", False)), None)
    if mover is not None and settings.reference_cache:
        why = f"geometry {mover!r} moves the reference, so it is computed in every step"
        unused("reference_cache", why, "leave it out")
    if not settings.eval_suite:
        for name in ("eval_suite_limit", "eval_suite_max_new_tokens", "eval_suite_data"):
            unused(name, "no suites are named", "add --eval-suite NAMES, or leave it out")
    if settings.lora_r == 0:
        unused("lora_alpha", "--lora.r is 0, so there is no adapter", "add --lora.r 8, or leave it out")
    given = plan.origins.get("micro_batch_size")
    if settings.tokens_per_micro_batch is not None and given == plan.origins.get("tokens_per_micro_batch"):
        unused("micro_batch_size", "--tokens-per-micro-batch takes precedence", "leave one of them out")
    if settings.eval_data is not None:
        unused("eval_share", "--eval-data sets the held-out data", "leave one of them out")
    else:
        unused("eval_data_split", "there is no --eval-data", "leave it out")
        unused("eval_data_format", "there is no --eval-data", "leave it out")
    data, evaluator = data_of(settings.data, known), evaluator_of(settings, known)
    if data is not None:
        for name in ("data_split", "data_format", *(("eval_share",) if data.held_out else ())):
            unused(name, f"--data {data.name} has its own splits and layout", "name your own --data, or leave it out")
        if data.clean:
            unused("data_strict", f"--data {data.name} has no malformed rows", "use other --data, or leave it out")
    held_out = data_of(settings.eval_data, known)
    if held_out is not None:
        for name in ("eval_data_split", "eval_data_format"):
            unused(name, f"--eval-data {held_out.name} has its own splits and layout", "leave it out")
        if not held_out.held_out:
            problems.append(
                UsageError(f"--eval-data {held_out.name} has no validation split", hint="use other held-out data")
            )
    if evaluator is None:
        hint = f"leave it out, or run on --data {' / '.join(evaluated_data(known))}"
        unused("samples", f"no answers are generated on --data {settings.data}", hint)
    problems += unused_judges(plan, evaluator)
    if not (data and data.held_out) and settings.eval_data is None and settings.eval_share == 0:
        generates = settings.eval_suite or settings.show_samples
        for name in ("eval_pairs", *(() if generates else ("eval_every",))):
            unused(name, "nothing is held out", "raise --eval-share, or set --eval-data")
    probing = [method.card for method in plan.all_methods if "probe" in method.needs]
    if settings.probe_share == 0 and probing:
        kind, named = probing[0].kind, "probe" in probing[0].options.model_fields
        problems.append(
            UsageError(
                f"{kind} {probing[0].name!r} needs a safety probe, but --probe.share 0 leaves no rows to train it",
                hint=f"raise --probe.share{f', or use a saved probe: --{kind}.probe DIR' if named else ''}",
            )
        )
    return problems
