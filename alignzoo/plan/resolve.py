"""Resolves layers of settings to a ``Plan`` or a list of problems: one pure function for ``run``, ``--dry-run``,
``compat`` and Python, so an invalid combination is rejected before any weights load.

Values are layered: card default < recipes, left to right < flags; the origin of each is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from pydantic import ValidationError

from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.conflicts import conflicts, missing_extensions
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.select import grounded, select
from alignzoo.plan.settings import EMBEDDED, Settings
from alignzoo.plan.unclaimed import unclaimed
from alignzoo.plugin.registry import Registry, registry


def resolve(
    layers: Sequence[Layer], *, methods: Registry | None = None, distributed: str = "none", trains: bool = True
) -> Plan | list[AlignzooError]:
    """Resolve layers of settings into a plan.

    Args:
        layers: flat values, weakest first (recipes in order, then flags); see :mod:`alignzoo.plan.recipe`.
        methods: the registry to look names up in; the environment's by default.
        distributed: the backend the run will use, as
            :func:`alignzoo.distributed.launch.distributed_backend` names them.
        trains: whether the plan is of a run; otherwise its data and training settings do not matter.

    Returns:
        The plan, or every problem found, each an error with its exit code.
    """
    methods = methods or registry()
    if staged := next((layer for layer in layers if layer.stages), None):
        hint = "`alignzoo run` runs its stages; in Python, alignzoo.stages.execute.run_stages does"
        return [UsageError(f"{staged.origin} has several stages, so it is no single run", hint=hint)]
    problems = _half_named(layers) if trains else []
    layers = grounded(layers)
    found = select(layers, methods)
    problems += found.problems
    settings, origins = _settings(layers, problems)
    if settings is not None:
        problems += missing_extensions(settings, methods)
    if problems or settings is None:
        return problems
    plan = Plan(found.methods(), settings, origins)
    problems = [*unclaimed(layers, found, methods), *conflicts(plan, distributed, methods, trains=trains)]
    notes = (note for layer in layers for note in layer.notes)
    own = (*_experimental(plan), *_same_guides(plan), *_objective(plan))
    return problems or replace(plan, notes=(*notes, *found.notes, *own))


def _same_guides(plan: Plan) -> list[str]:
    """A guide that is compared with itself."""
    guide = plan.settings.guide
    same = guide is not None and guide == plan.settings.contrast
    return [f"--guide and --contrast are both {guide}, so they agree on every token and favour none"] if same else []


def _experimental(plan: Plan) -> list[str]:
    """What has not been confirmed about the methods of a plan."""
    cards = [method.card for methods in plan.methods.values() for method in methods]
    return [f"{card.kind} {card.name} is experimental ({card.experimental})" for card in cards if card.experimental]


def _objective(plan: Plan) -> list[str]:
    """The objective of a mixture of losses or of a stack of wrappers, in words."""
    first, *others = plan.of("loss")
    wrapped = f"; wrappers apply to {first.card.name}, the first loss" if plan.of("robust") else ""
    if not others:
        return [f"objective: {plan.objective()}"] if len(plan.of("robust")) > 1 else []
    return [f"objective: {plan.objective()}{wrapped}"]


def _half_named(layers: Sequence[Layer]) -> list[AlignzooError]:
    """A model without data, or data without a model."""
    named = {key for layer in layers for key in ("model", "data") if key in layer.values}
    if len(named) != 1:
        return []
    (given,), (missing,) = named, {"model", "data"} - named
    return [
        UsageError(
            f"--{given} needs --{missing} as well",
            hint=f"set your own --{missing}, or use the embedded one: --{missing} {EMBEDDED}",
        )
    ]


def require(resolved: Plan | list[AlignzooError]) -> Plan:
    """The plan, or the first problem raised with the others in its message."""
    return resolved if isinstance(resolved, Plan) else raise_first(resolved)


def raise_first(problems: Sequence[AlignzooError]) -> NoReturn:
    """The first problem raised, with the others in its message."""
    first = problems[0]
    if len(problems) == 1:
        raise first
    others = "".join(f"\n  also: {problem.message}" for problem in problems[1:])
    raise type(first)(first.message + others, hint=first.hint)


def _settings(layers: Sequence[Layer], problems: list[AlignzooError]) -> tuple[Settings | None, dict[str, str]]:
    flags = Settings.by_flag()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for key, value in layer.values.items():
            if key.partition(".")[0] in KINDS:
                continue
            if key not in flags:
                hint = suggest(key, [*flags, *KINDS]) or "`alignzoo run --help` lists the settings"
                problems.append(UsageError(f"{layer.origin}: unknown setting {shown(key)}", hint=hint))
                continue
            if flags[key] == "trust_remote_code" and layer.origin.startswith("recipe:"):
                problems.append(
                    UsageError(
                        f"{layer.origin} sets {key}, which a recipe may not: it lets third-party code run",
                        hint=f"remove it, and set --{key} yourself if you trust the model",
                    )
                )
                continue
            values[flags[key]] = value
            origins[flags[key]] = layer.origin
    try:
        return Settings.model_validate(values), origins
    except ValidationError as error:
        for problem in error.errors():
            where = f"--{Settings.flag(str(problem['loc'][0]))}: " if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            got = f" (got {shown(problem['input'])})" if problem["loc"] else ""
            problems.append(UsageError(f"{where}{message[0].lower()}{message[1:]}{got}"))
        return None, origins
