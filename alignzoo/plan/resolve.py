"""From what was asked to a ``Plan``, or to the list of problems: one pure function for ``run``, ``--dry-run``,
``compat`` and Python, so that a wrong combination is refused before any weight loads.

Values are layered: card default < recipes, left to right < flags; the origin of each is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn, cast

from pydantic import ValidationError

from alignzoo.base.shown import shown
from alignzoo.base.suggest import nearest, suggest
from alignzoo.contract.card import Card, Composition
from alignzoo.contract.robust import NO_WRAPPER
from alignzoo.errors import AlignzooError, IncompatibleError, UsageError
from alignzoo.plan.conflicts import conflicts, missing_extensions
from alignzoo.plan.plan import SANDBOX, Method, Plan, default_reward
from alignzoo.plan.recipe import METHOD_KINDS, Layer, read_recipe
from alignzoo.plan.settings import Settings
from alignzoo.plugin.build import build_options, default_needs
from alignzoo.plugin.registry import Registry, registry

SANDBOX_RECIPE = "alignzoo:sandbox"
DEFAULT_LOSS, DEFAULT_GEOMETRY = "alignzoo:dpo", "alignzoo:plain"


def resolve(
    layers: Sequence[Layer], *, methods: Registry | None = None, distributed: str = "none"
) -> Plan | list[AlignzooError]:
    """Resolve layered words into a plan.

    Args:
        layers: flat values, weakest first (recipes in order, then flags); see :mod:`alignzoo.plan.recipe`.
        methods: the registry to look names up in; the environment's by default.
        distributed: the backend the run will use, as
            :func:`alignzoo.distributed.launch.distributed_backend` names them.

    Returns:
        The plan, or every problem found, each an error with its exit code.
    """
    methods = methods or registry()
    problems: list[AlignzooError] = []
    named = {key for layer in layers for key in ("model", "data") if key in layer.values}
    if not named:  # the shipped recipe of the embedded world is the lowest layer
        layers = [read_recipe(SANDBOX_RECIPE), *layers]
    elif len(named) == 1:
        (given,), (missing,) = named, {"model", "data"} - named
        problems.append(
            UsageError(
                f"--{given} is given without --{missing}",
                hint=f"name a --{missing} of your own, or the embedded one: --{missing} {SANDBOX}",
            )
        )
    names, notes = _expand(_names(layers), methods, problems)
    notes = [*(note for layer in layers for note in layer.notes), *notes]
    loss = _choose("loss", names["loss"], layers, methods, problems)
    robust = [_choose("robust", name, layers, methods, problems) for name in names["robust"]]
    controllers = [_choose("geometry", name, layers, methods, problems) for name in names["geometry"]]
    settings, origins = _settings(layers, problems)
    if settings is not None:
        problems += missing_extensions(settings, methods)
    if problems or loss is None or settings is None:
        return problems
    chosen = tuple(method for method in robust if method is not None)
    taking, companions = _parted([method for method in controllers if method is not None], problems)
    if problems:
        return problems
    plan = Plan(loss, chosen, taking, settings, origins, tuple(notes), companions)
    plan = replace(plan, reward=_reward(plan, names["reward"], layers, methods, problems))
    if problems:
        return problems
    problems = [*_unclaimed_options(layers, plan, methods), *conflicts(plan, distributed)]
    return problems or plan


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


def _names(layers: Sequence[Layer]) -> dict[str, Any]:
    names: dict[str, Any] = {"loss": DEFAULT_LOSS, "robust": [], "geometry": [], "reward": None}
    for layer in layers:
        names.update({kind: layer.values[kind] for kind in METHOD_KINDS if kind in layer.values})
    names["robust"] = [name for name in names["robust"] if name != NO_WRAPPER]
    names["geometry"] = as_list(names["geometry"])
    return names


def as_list(names: str | list[str]) -> list[str]:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def is_companion(name: str, methods: Registry) -> bool:
    """Whether a controller leaves the gradient to another one; False for a name that is not there."""
    try:
        return getattr(methods.find("geometry", name), "companion", False)
    except AlignzooError:
        return False


def with_gradient(names: list[str], methods: Registry) -> list[str]:
    """The names of controllers with one that takes the gradient: the default where only companions are named."""
    return names if any(not is_companion(name, methods) for name in names) else [DEFAULT_GEOMETRY, *names]


def _parted(controllers: list[Method], problems: list[AlignzooError]) -> tuple[Method, tuple[Method, ...]]:
    """The controller that takes the gradient, and its companions."""
    taking = [method for method in controllers if not method.card.companion]
    names = [method.card.name for method in taking]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        problems.append(IncompatibleError(f"--geometry {repeated[0]} is given twice", hint="name each method once"))
    elif len(taking) > 1:
        problems.append(
            IncompatibleError(
                f"{' and '.join(names)} each choose where the gradient is taken, and only one can",
                hint=f"keep one of --geometry {' / --geometry '.join(names)}",
            )
        )
    return taking[0], tuple(method for method in controllers if method.card.companion)


def _expand(
    names: dict[str, Any], methods: Registry, problems: list[AlignzooError]
) -> tuple[dict[str, Any], list[str]]:
    """A named composition replaced by its parts, with a note that says so; what is not named gets its default."""
    asked = names["geometry"]
    names = {**names, "geometry": with_gradient(asked, methods)}
    try:
        method = methods.find("loss", names["loss"])
    except AlignzooError:
        return names, []  # reported with its kind when the loss is chosen
    if not isinstance(method, Composition):
        return names, []
    home = methods.distribution_of(method)
    missing = [methods.at_home("robust", name, home) for name in method.robust if name not in names["robust"]]
    loss = methods.at_home("loss", method.loss, home)
    expanded = {**names, "loss": loss, "robust": [*missing, *names["robust"]]}
    if method.geometry is not None:
        others = [name for name in asked if name != method.geometry and not is_companion(name, methods)]
        if others:
            problems.append(
                IncompatibleError(
                    f"{method.name} already means --geometry {method.geometry}, so --geometry {others[0]} does not fit",
                    hint=f"name the parts yourself: {method.flags()}",
                )
            )
        own = methods.at_home("geometry", method.geometry, home)
        expanded["geometry"] = [own, *(name for name in asked if is_companion(name, methods))]
    return expanded, [f"--loss {method.name} stands for {method.flags()}"]


def _reward(
    plan: Plan, asked: str | None, layers: Sequence[Layer], methods: Registry, problems: list[AlignzooError]
) -> Method | None:
    """The reward that was asked for, or the default one; None where no method reads scores."""
    default = default_reward(plan.needs)
    if asked is not None and default is None:
        cards = [card for _, card in methods.entries() if isinstance(card, Card) and card.kind != "reward"]
        readers = [f"--{card.kind} {card.name}" for card in cards if default_needs(card) & {"reward", "scores"}]
        problems.append(
            UsageError(
                f"--reward {asked} does nothing here: no method of this run reads scores",
                hint=f"add one that does ({', '.join(readers)}), or leave it out",
            )
        )
        return None
    name = asked or default
    return None if name is None else _choose("reward", name, layers, methods, problems)


def _choose(
    kind: str, name: str, layers: Sequence[Layer], methods: Registry, problems: list[AlignzooError]
) -> Method | None:
    try:
        card = cast(Card, methods.find(kind, name))
        values, origins = _options(kind, name, card, layers, methods)
        return Method(card, methods.distribution_of(card), build_options(card, values), origins)
    except AlignzooError as error:
        problems.append(error)
        return None


def _options(
    kind: str, name: str, card: Card, layers: Sequence[Layer], methods: Registry
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of the method's options over all layers, and where each came from."""
    shared = kind == "robust" or (kind == "geometry" and len(_names(layers)["geometry"]) > 1)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        if not _speaks_of(kind, name, card, layer, methods):
            continue
        for prefix in (f"{kind}.", f"{kind}.{card.name}."):
            for key, value in layer.values.items():
                option = key.removeprefix(prefix)
                if key.startswith(prefix) and "." not in option and (not shared or _owns(card, option, prefix)):
                    values[option] = value
                    origins[option] = layer.origin
    return values, origins


def _speaks_of(kind: str, name: str, card: Card, layer: Layer, methods: Registry) -> bool:
    """Whether a layer's bare ``kind.option`` words mean this method: a layer that names another one does not."""
    named = layer.values.get(kind)
    if named is None or kind == "robust":
        return True
    return any(_means(kind, one, name, card, methods) for one in as_list(named))


def _means(kind: str, named: str, name: str, card: Card, methods: Registry) -> bool:
    if named in (name, card.name):
        return True
    try:
        method = methods.find(kind, named)
    except AlignzooError:
        return False
    return method is card or getattr(method, kind, None) == card.name


def _owns(card: Card, option: str, prefix: str) -> bool:
    """In a stack ``--robust.option`` goes to those that have it, ``--robust.NAME.option`` to that one."""
    return option in card.options.model_fields or prefix.endswith(f".{card.name}.")


def owners(option: str, cards: Sequence[Card]) -> list[str]:
    """The flags ``--KIND.option`` of the methods that have it."""
    return list(dict.fromkeys(f"--{card.kind}.{option}" for card in cards if option in card.options.model_fields))


_NOUNS = {"loss": "loss", "robust": "wrapper", "geometry": "controller", "reward": "reward"}


def _unclaimed_options(layers: Sequence[Layer], plan: Plan, methods: Registry) -> list[AlignzooError]:
    """Options that no method of a kind has, and options of methods that were not chosen."""
    stacks: dict[str, Sequence[Method]] = {
        "loss": [plan.loss],
        "robust": plan.robust,
        "geometry": plan.controllers,
        "reward": [plan.reward] if plan.reward else [],
    }
    problems: list[AlignzooError] = []
    for kind, stack in stacks.items():
        alone = kind == "loss" or (kind == "geometry" and len(stack) == 1)
        for i, layer in enumerate(layers):
            if alone and not _speaks_of(kind, stack[0].card.name, stack[0].card, layer, methods):
                continue
            words = [key.split(".") for key in layer.values if key.startswith(f"{kind}.")]
            # Bare options of a method that stands alone were judged when it was built.
            judged = [parts for parts in words if not (alone and len(parts) == 2)]
            if any(kind in later.values for later in layers[i + 1 :]):  # which take away methods with their options
                here = {method.card.name for method in stack}
                judged = [parts for parts in judged if len(parts) < 3 or parts[1] in here]
            problems += [problem for parts in judged if (problem := _unclaimed(parts, stack, plan)) is not None]
    return problems


def _unclaimed(parts: list[str], stack: Sequence[Method], plan: Plan) -> UsageError | None:
    """What is wrong with ``[kind, option]`` or ``[kind, owner, ..., option]``, if anything is."""
    kind, *owner, option = parts
    key, noun = ".".join(parts), _NOUNS[kind]
    fields = {name for method in stack for name in method.card.options.model_fields}
    if owner in [[method.card.name] for method in stack] or (not owner and option in fields):
        return None
    if len(owner) == 1 and owner[0] not in fields:
        return UsageError(f"--{key}: no {noun} {shown(owner[0])} in this run", hint=f"add --{kind} {owner[0]}")
    elsewhere = owners(option, [method.card for method in plan.methods]) if not owner else []
    found = [nearest(word, sorted(fields)) for word in (*owner[::-1], option)]
    near = [f"--{kind}.{name}" for name in next(filter(None, found), [])]
    hint = f"did you mean {' or '.join(elsewhere or near)}?" if elsewhere or near else None
    if hint is None and fields:
        hint = f"there are: {', '.join(f'--{kind}.{name}' for name in sorted(fields))}"
    return UsageError(f"--{key}: no {noun} of this run has that option", hint=hint)


def _settings(layers: Sequence[Layer], problems: list[AlignzooError]) -> tuple[Settings | None, dict[str, str]]:
    flags = Settings.by_flag()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for key, value in layer.values.items():
            if key.partition(".")[0] in METHOD_KINDS:
                continue
            if key not in flags:
                hint = suggest(key, [*flags, *METHOD_KINDS]) or "`alignzoo run --help` lists the settings"
                problems.append(UsageError(f"{layer.origin}: unknown setting {shown(key)}", hint=hint))
                continue
            if flags[key] == "trust_remote_code" and layer.origin.startswith("recipe:"):
                problems.append(
                    UsageError(
                        f"{layer.origin} asks for {key}, and a recipe may not: it lets a stranger's code run",
                        hint=f"take it out, and give --{key} yourself if you trust the model",
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
