"""``plan.yaml``: everything that determines a run, each value with where it came from; read back by ``--resume``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from alignzoo import __version__
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.launch import distributed_backend
from alignzoo.plugin.card import ExtensionKind
from alignzoo.plugin.discover import Plugin
from alignzoo.plugin.recipe import Layer
from alignzoo.plugin.registry import registry, sources
from alignzoo.plugin.resolve import SANDBOX, Method, Plan, require, resolve
from alignzoo.plugin.settings import Settings

PLAN_FILE = "plan.yaml"
DEFAULT, PRESET = "default", "preset"
"""Origins of values that nobody stated: the card's default, or what a stated option (a preset) fills in."""


def _stated(values: Mapping[str, Any], origins: Mapping[str, str], preset: Collection[str] = ()) -> dict[str, Any]:
    def origin(name: str) -> str:
        return origins.get(name, PRESET if name in preset else DEFAULT)

    return {name: {"value": value, "from": origin(name)} for name, value in values.items()}


def _method(method: Method) -> dict[str, Any]:
    return {
        "name": method.card.name,
        "from": method.distribution,
        "options": _stated(
            method.options.model_dump(mode="json"), method.origins, preset=method.options.model_fields_set
        ),
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
        "plugins": [plugin.identity() for plugin in used_plugins(plan)],
        "settings": _stated({Settings.flag(name): value for name, value in settings.items()}, origins),
    }


def used_plugins(plan: Plan) -> list[Plugin]:
    """The plugins that a run uses: those of its methods, observers, judge and data format, and every ``--plugin``."""
    known, settings = registry(), plan.settings
    cards = [method.card for method in plan.methods]
    used = [known.plugin_of(card) for card in cards]
    asked: list[tuple[ExtensionKind, str]] = [("judge", settings.judge)] if settings.data == SANDBOX else []
    asked += [("observer", name) for name in settings.observe]
    used += [known.plugin_of(known.find_extension(kind, name)) for kind, name in asked]
    formats = {name for name in (settings.data_format, settings.eval_data_format) if name}
    used += [plugin for plugin, card in known.extensions("format") if formats & {card.name, plugin.distribution}]
    return [plugin for plugin in known.plugins if plugin.file or any(plugin is other for other in used)]


def write_plan(plan: Plan, folder: Path) -> None:
    """Write ``plan.yaml`` into a run folder, whole or not at all."""
    text = yaml.safe_dump(_anchored(plan_to_dict(plan)), sort_keys=False, allow_unicode=True, width=100)
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
        files = [plugin["file"] for plugin in content.get("plugins", ()) if plugin["file"]]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise AlignzooError(f"{path} is damaged: {error}", hint="start the run anew with another --out") from error
    absent = [file for file in files if Path(file) not in [given.resolve() for given in sources().files]]
    if absent:
        raise UsageError(
            f"the run in {folder} uses the plugin file {absent[0]}, and a run folder may not make code run by itself",
            hint=f"name it again: alignzoo run --resume {folder} " + " ".join(f"--plugin {file}" for file in files),
        )
    plan = require(resolve(layers, distributed=distributed_backend()))
    _check_unchanged(content, plan, path)
    return plan


def changed_plugins(folder: Path, plan: Plan) -> list[str]:
    """What to say of the plugins of a run that are not what they were when it was started."""
    content = yaml.safe_load((folder / PLAN_FILE).read_text(encoding="utf-8"))
    then = {(old["distribution"], old["entry_point"]): old for old in content.get("plugins", ())}
    remarks = []
    for plugin in used_plugins(plan):
        now, old = plugin.identity(), then.get((plugin.distribution, plugin.entry_point))
        if old is None or (old["version"], old["hash"]) == (now["version"], now["hash"]):
            continue
        what = "its files have changed" if old["version"] == now["version"] else f"it was {old['version']} then"
        remarks.append(
            f"plugin {plugin.label} ({plugin.entry_point}) is not the one that this run was started with: {what}; "
            "the rest of the run may differ from its beginning"
        )
    return remarks


def _anchored(content: dict[str, Any]) -> dict[str, Any]:
    """Local files and folders by their whole path, so that a run can be resumed from anywhere."""
    groups = [content["settings"], *(method["options"] for method in _methods(content))]
    for stated in (stated for group in groups for stated in group.values()):
        value = stated["value"]
        if isinstance(value, str) and value != SANDBOX and Path(value).exists():
            stated["value"] = str(Path(value).resolve())
    return content


def _check_unchanged(content: dict[str, Any], plan: Plan, path: Path) -> None:
    """A newer alignzoo may have other defaults; a resumed run keeps those that it was started with."""
    now = plan_to_dict(plan)
    for then, group in ((content["settings"], now["settings"]), *_paired_options(content, now)):
        for name, stated in group.items():
            if name not in then or then[name]["value"] != stated["value"]:
                was = repr(then[name]["value"]) if name in then else "not there"
                raise AlignzooError(
                    f"{path}: {name} was {was} when the run was started, and would now be {stated['value']!r}",
                    hint=f"resume it with alignzoo {content.get('alignzoo')}, or start it anew with another --out",
                )


def _methods(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [content["loss"], *content["robust"], content["geometry"]]


def _paired_options(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    pairs = zip(_methods(then), _methods(now), strict=True)
    return [(old["options"], new["options"]) for old, new in pairs]


def _qualified(method: dict[str, Any]) -> str:
    return f"{method['from']}:{method['name']}"


def _layers(content: dict[str, Any]) -> list[Layer]:
    """One layer for each origin, so that the origins survive a resume."""
    values: dict[str, dict[str, Any]] = {}

    def put(key: str, stated: dict[str, Any]) -> None:
        if stated["from"] not in (DEFAULT, PRESET):
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
