"""Recipes: named YAML files with the settings of a ``run`` command line.

::

    description: DPO with selective sharpness control
    loss: [{name: dpo, beta: 0.1}, {name: sft, weight: 0.1}]
    robust: [drdpo]
    geometry: {name: shapo-token, rho: 0.05}
    lr: 1.0e-4
    lora: {r: 8}

Every layer of a run (recipes, flags) is flattened to dotted keys: ``loss``, ``loss.beta``, ``robust.drdpo.beta_prime``,
``lora.r``. Options in a list of methods, and of wrappers, belong to the method that they are given with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.base.safe_yaml import YAMLFault, read_yaml
from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.contract.card import WEIGHT
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import UsageError
from alignzoo.plan.started import PLAN_FILE
from alignzoo.plugin.faults import is_file
from alignzoo.plugin.registry import registry

ABOUT = ("description", "paper")
"""Keys that speak of a recipe and set nothing; a paper has the fields of :class:`~alignzoo.contract.paper.Paper`."""


@dataclass(frozen=True)
class Layer:
    """Values from one place.

    Attributes:
        origin: ``recipe:NAME`` or ``flag``.
        notes: what to say when it is used.
        stages: of a recipe of several stages, each as it is written; see :mod:`alignzoo.stages.parse`.
    """

    origin: str
    values: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stages: tuple[Any, ...] = ()


def recipe_names() -> list[str]:
    """The recipes of alignzoo and the installed plugins, by name."""
    return sorted({name for _, name, _ in registry().recipes()})


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name (or ``distribution:name``) or by path; of a run folder its plan.

    Raises:
        UsageError: neither, with the nearest names; or two plugins bring that name.
    """
    named = registry().find_recipe(name)
    if named is not None:
        return named
    for path in (Path(name), Path(name) / PLAN_FILE):
        if is_file(path):
            return path
    raise UsageError(
        f"no recipe {shown(name)}: neither installed nor a file",
        hint=suggest(name, recipe_names()) or "`alignzoo recipes list` shows the installed ones",
    )


def read_recipe(name: str) -> Layer:
    """A recipe by name or path, as a flat layer; a run's plan serves as one, too.

    Raises:
        UsageError: not found, not YAML, or not a mapping.
    """
    path = find_recipe(name)
    try:
        content = read_yaml(path)
    except YAMLFault as error:
        raise UsageError(
            f"{error}; not a valid recipe", hint="`alignzoo recipes show NAME` prints one that works"
        ) from error
    if not isinstance(content, dict):
        found = "empty" if content is None else f"a {type(content).__name__}"
        raise UsageError(f"{path}: a recipe must be a mapping of settings, this is {found}")
    if is_plan(content):
        from alignzoo.plan.planfile import plan_layer

        return plan_layer(content, name)
    bare = name.rpartition(":")[2]
    stages = content.pop("stages", [])
    if not isinstance(stages, list):
        raise UsageError(f"{path}: stages is {shown(stages)}, not a list", hint="write `stages: [{name: NAME, …}, …]`")
    origin = f"recipe:{path.stem if path.stem == bare else name}"
    return Layer(origin, flatten(content, str(path)), stages=tuple(stages))


def is_plan(content: dict[str, Any]) -> bool:
    """Whether this is what a run has written down of itself, which states an origin for each value."""
    return {"alignzoo", "sentence", "settings"} <= content.keys()


def flatten(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Nested words to dotted keys; ``description`` and ``paper`` are dropped.

    Raises:
        UsageError: a method without a name, or a word that is given twice (``max_steps`` and ``max-steps``).
    """
    flat = _Flat(where)
    for raw, value in content.items():
        key = str(raw)
        if key in ABOUT:
            continue
        kind = KINDS.get(key)
        if kind is not None and kind.several and (isinstance(value, list) or kind.multiplicity == "stack"):
            names = value if isinstance(value, list) else [value]
            flat.put(key, [flat.method(item, key, qualified=True) for item in names])
        elif kind is not None:
            flat.put(key, flat.method(value, key, qualified=False))
        elif isinstance(value, dict) and value:
            for inner, item in value.items():
                flat.put(f"{_dashed(key)}.{inner}", item)
        else:
            flat.put(key if key.partition(".")[0] in KINDS else _dashed(key), value)
    return flat.values


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _as_list(methods: Mapping[Any, Any], kind: str) -> str | None:
    """A mapping from names of methods to their options (or to weights) as the list that was meant; None if its keys are
    no such names."""
    known = {name for _, method in registry().entries(kind) for name in (method.name, *method.aliases)}
    if not methods or not all(str(name) in known for name in methods):
        return None
    items = []
    for name, options in methods.items():
        if KINDS[kind].multiplicity == "mixture" and isinstance(options, int | float):
            options = {WEIGHT: options}
        given = options.items() if isinstance(options, Mapping) else ()
        items.append(f"{{{', '.join([f'name: {name}', *(f'{option}: {value}' for option, value in given)])}}}")
    return f"[{', '.join(items)}]" if KINDS[kind].several else " or ".join(items)


class _Flat:
    """Dotted keys and their values, none given twice."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.values: dict[str, Any] = {}

    def put(self, key: str, value: Any) -> None:
        if key in self.values:
            raise UsageError(f"{self.where}: {shown(key)} is set twice", hint="leave one of them out")
        self.values[key] = value

    def method(self, value: Any, kind: str, *, qualified: bool) -> str:
        """The method's name; its options are put beside it."""
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and "name" not in value and (listed := _as_list(value, kind)):
            raise UsageError(
                f"{self.where}: {kind} is a mapping from names of methods, not a method or a list of methods",
                hint=f"write `{kind}: {listed}`",
            )
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise UsageError(
                f"{self.where}: {kind} must be a name or a mapping with `name`, not {shown(value)}",
                hint=f"write `{kind}: NAME` or `{kind}: {{name: NAME, option: value}}`",
            )
        name = str(value["name"])
        for option, item in value.items():
            if option != "name":
                self.put(f"{kind}.{name}.{option}" if qualified else f"{kind}.{option}", item)
        return name
