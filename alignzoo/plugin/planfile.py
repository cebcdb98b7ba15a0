"""``plan.yaml``: everything that determines a run, each value with where it came from; read back by ``--resume``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from alignzoo import __version__
from alignzoo.errors import AlignzooError
from alignzoo.launch import distributed_backend
from alignzoo.plugin.recipe import Layer
from alignzoo.plugin.resolve import Method, Plan, require, resolve
from alignzoo.plugin.settings import Settings

PLAN_FILE = "plan.yaml"


def _stated(values: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"value": value, "from": origins.get(name, "default")} for name, value in values.items()}


def _method(method: Method) -> dict[str, Any]:
    return {
        "name": method.card.name,
        "from": method.distribution,
        "options": _stated(method.options.model_dump(mode="json"), method.origins),
    }


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain data: methods with their options, settings by flag, each value with its origin."""
    settings = plan.settings.model_dump(mode="json")
    origins = {Settings.flag(name): origin for name, origin in plan.origins.items()}
    return {
        "alignzoo": __version__,
        "sentence": plan.sentence(),
        "notes": list(plan.notes),
        "loss": _method(plan.loss),
        "robust": [_method(method) for method in plan.robust],
        "geometry": _method(plan.geometry),
        "needs": sorted(plan.needs),
        "settings": _stated({Settings.flag(name): value for name, value in settings.items()}, origins),
    }


def write_plan(plan: Plan, folder: Path) -> None:
    """Write ``plan.yaml`` into a run folder, whole or not at all."""
    text = yaml.safe_dump(plan_to_dict(plan), sort_keys=False, allow_unicode=True, width=100)
    partial = folder / f".{PLAN_FILE}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / PLAN_FILE)


def read_plan(folder: Path) -> Plan:
    """The plan of a run folder.

    Raises:
        AlignzooError: the folder is not a run of alignzoo, or its plan is damaged.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        reason = "no such folder" if not folder.is_dir() else f"it holds no {PLAN_FILE}"
        raise AlignzooError(
            f"{folder} is not the folder of an alignzoo run: {reason}", hint="give the --out folder of an earlier run"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        layers = _layers(content)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise AlignzooError(f"{path} is damaged: {error}", hint="start the run anew with another --out") from error
    return require(resolve(layers, distributed=distributed_backend()))


def _qualified(method: dict[str, Any]) -> str:
    return f"{method['from']}:{method['name']}"


def _layers(content: dict[str, Any]) -> list[Layer]:
    """One layer for each origin, so that the origins survive a resume."""
    values: dict[str, dict[str, Any]] = {}

    def put(key: str, stated: dict[str, Any]) -> None:
        if stated["from"] != "default":
            values.setdefault(stated["from"], {})[key] = stated["value"]

    for flag, stated in content["settings"].items():
        put(flag, stated)
    names: dict[str, Any] = {kind: _qualified(content[kind]) for kind in ("loss", "geometry")}
    names["robust"] = [_qualified(method) for method in content["robust"]]
    for kind in ("loss", "geometry"):
        for option, stated in content[kind]["options"].items():
            put(f"{kind}.{option}", stated)
    for method in content["robust"]:
        for option, stated in method["options"].items():
            put(f"robust.{method['name']}.{option}", stated)
    layers = [Layer(origin, {**layer, **names}) for origin, layer in values.items()]
    return layers or [Layer("plan", names)]
