"""Recipes: YAML files with the words of a ``run`` command line, checked in and named.

::

    description: DPO with selective sharpness control
    loss: {name: dpo, beta: 0.1}
    robust: [drdpo]
    geometry: {name: shapo-token, rho: 0.05}
    lr: 1.0e-4
    lora: {r: 8}

Every layer of a run (recipes, flags) is flattened to dotted keys: ``loss``, ``loss.beta``, ``robust.drdpo.beta_prime``,
``lora.r``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignzoo.errors import UsageError
from alignzoo.plugin.faults import is_file
from alignzoo.plugin.registry import registry

METHOD_KINDS = ("loss", "robust", "geometry", "reward")


@dataclass(frozen=True)
class Layer:
    """Values from one place. ``origin`` is ``recipe:NAME`` or ``flag``; ``notes`` is what to say when it is used."""

    origin: str
    values: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def recipe_names() -> list[str]:
    """The recipes that alignzoo and the installed plugins bring, by name."""
    return sorted({name for _, name, _ in registry().recipes()})


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name (or ``distribution:name``) or by path; of a run folder its plan.

    Raises:
        UsageError: neither, with the nearest names; or two plugins bring that name.
    """
    named = registry().find_recipe(name)
    if named is not None:
        return named
    from alignzoo.plugin.planfile import PLAN_FILE

    for path in (Path(name), Path(name) / PLAN_FILE):
        if is_file(path):
            return path
    near = difflib.get_close_matches(name, recipe_names(), n=3, cutoff=0.5)
    raise UsageError(
        f"no recipe {name!r}: neither an installed one nor a file",
        hint=f"did you mean {' or '.join(near)}?" if near else "`alignzoo recipes list` shows the installed ones",
    )


def read_recipe(name: str) -> Layer:
    """A recipe by name or path, as a flat layer; a run's plan serves as one, too.

    Raises:
        UsageError: not found, not YAML, or not a mapping.
    """
    path = find_recipe(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(
            f"{where}: not valid YAML ({getattr(error, 'problem', None) or error})",
            hint="`alignzoo recipes show NAME` prints one that works",
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a recipe is a mapping of settings, this is a {type(content).__name__}")
    if is_plan(content):
        from alignzoo.plugin.planfile import plan_layer

        return plan_layer(content, name)
    bare = name.rpartition(":")[2]
    return Layer(origin=f"recipe:{path.stem if path.stem == bare else name}", values=flatten(content, str(path)))


def is_plan(content: dict[str, Any]) -> bool:
    """Whether this is what a run has written down of itself, which states an origin for each value."""
    return {"alignzoo", "sentence", "settings"} <= content.keys()


def flatten(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Nested words to dotted keys; ``description`` is dropped."""
    flat: dict[str, Any] = {}
    for raw, value in content.items():
        key = str(raw)
        if key == "description":
            continue
        if key == "robust" or (key == "geometry" and isinstance(value, list)):
            names = value if isinstance(value, list) else [value]
            flat[key] = [_method(item, key, where, flat, qualified=True) for item in names]
        elif key in ("loss", "geometry", "reward"):
            flat[key] = _method(value, key, where, flat, qualified=False)
        elif isinstance(value, dict):
            flat.update({f"{_dashed(key)}.{inner}": item for inner, item in value.items()})
        else:
            flat[key if key.partition(".")[0] in METHOD_KINDS else _dashed(key)] = value
    return flat


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _method(value: Any, kind: str, where: str, flat: dict[str, Any], *, qualified: bool) -> str:
    """The method's name; its options go into ``flat``."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise UsageError(
            f"{where}: {kind} is a name or a mapping with `name`, not {value!r}",
            hint=f"write `{kind}: NAME` or `{kind}: {{name: NAME, option: value}}`",
        )
    prefix = f"{kind}.{value['name']}" if qualified else kind
    flat.update({f"{prefix}.{option}": item for option, item in value.items() if option != "name"})
    return str(value["name"])
