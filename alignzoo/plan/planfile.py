"""``plan.yaml``: everything that determines a run, each value with where it came from; read back by ``--resume``."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from alignzoo.base.files import write_text
from alignzoo.base.stored import DIGEST, read_object, value_digest
from alignzoo.contract.card import WEIGHT, Card, Extension, ExtensionKind, is_path
from alignzoo.contract.kinds import KINDS
from alignzoo.distributed.launch import distributed_backend
from alignzoo.errors import AlignzooError, DamagedError, UsageError
from alignzoo.plan.extensions import used_extensions
from alignzoo.plan.plan import Method, Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.settings import Settings
from alignzoo.plan.started import PLAN_FILE, methods_to_state, plan_as_started, stated_methods, stated_values
from alignzoo.plugin.faults import exists
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry
from alignzoo.plugin.sources import sources
from alignzoo.version import __version__

FITTED = "model"
"""The origin of a setting that the model has decided."""
DEVICE = "device"
"""The origin of a setting that the device has decided."""
DERIVED = (FITTED, DEVICE)
"""Origins of values that another model or device may give otherwise: a recipe made from a run leaves them out."""
PATHS: dict[str, ExtensionKind | None] = {"model": "model", "data": "data", "eval-data": "data", "out": None}
"""Settings that may name a file or folder, each with the kind of extension that it may name as well."""
DEFAULT, PRESET = "default", "preset"
"""Origins of values that nobody stated: the card's default, or what a stated option (a preset) fills in."""


def _stated(values: Mapping[str, Any], origins: Mapping[str, str], preset: Collection[str] = ()) -> dict[str, Any]:
    def origin(name: str) -> str:
        return origins.get(name, PRESET if name in preset else DEFAULT)

    return {name: {"value": value, "from": origin(name)} for name, value in values.items()}


def _method(method: Method, *, weighed: bool) -> dict[str, Any]:
    options = method.options.model_dump(mode="json")
    stated = {
        "name": method.card.name,
        "from": method.distribution,
        "options": _stated(options, method.origins, preset=method.options.model_fields_set),
    }
    return stated | (_stated({WEIGHT: method.weight}, method.origins) if weighed else {})


def _methods(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    weighed = {kind: KINDS[kind].multiplicity == "mixture" and len(some) > 1 for kind, some in plan.methods.items()}
    return {
        kind: [_method(method, weighed=weighed[kind]) for method in methods] for kind, methods in plan.methods.items()
    }


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain data: methods with their options, settings by flag, each value with its origin."""
    settings = plan.settings.model_dump(mode="json")
    origins = {Settings.flag(name): origin for name, origin in plan.origins.items()}
    return {
        "alignzoo": __version__,
        "sentence": plan.sentence(),
        "notes": list(plan.notes),
        **methods_to_state(_methods(plan)),
        "needs": sorted(plan.needs),
        "plugins": [plugin.identity() for plugin in used_plugins(plan)],
        "settings": _stated({Settings.flag(name): value for name, value in settings.items()}, origins),
    }


def used_plugins(plan: Plan) -> list[Plugin]:
    """The plugins that a run uses: those of its methods and extensions, and every ``--plugin``."""
    known = registry()
    cards: list[Card | Extension] = [
        *(method.card for method in plan.all_methods),
        *used_extensions(plan.settings, known),
    ]
    used = [known.plugin_of(card) for card in cards]
    return [plugin for plugin in known.plugins if plugin.file or any(plugin is other for other in used)]


def write_plan(plan: Plan, folder: Path) -> None:
    """Write ``plan.yaml`` into a run folder, whole or not at all."""
    content = _anchored(plan_to_dict(plan))
    for kind, stated in stated_methods(content).items():
        for method, facts in zip(plan.of(kind), stated, strict=True):
            _anchor_options(method, facts["options"])
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    text += yaml.safe_dump({DIGEST: value_digest(yaml.safe_load(text))})
    write_text(folder / PLAN_FILE, text)


def read_plan(folder: Path, *, trust_remote_code: bool = False, command: str = "run --resume") -> Plan:
    """The plan of a run folder.

    Args:
        trust_remote_code: the user allows its model to run code; a plan alone may not ask for that.
        command: what reads it, for messages.

    Raises:
        AlignzooError: the folder is not a run of alignzoo, or its plan is damaged.
        UsageError: it needs a plugin file or a trust that the user has to state again.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        reason = "no such folder" if not folder.is_dir() else f"it contains no {PLAN_FILE}"
        raise AlignzooError(
            f"{folder} is not an alignzoo run folder: {reason}", hint="use the --out folder of an earlier run"
        )
    content = plan_as_started(folder)
    layers = _layers(content)
    files = [plugin["file"] for plugin in content["plugins"] if plugin.get("file")]
    _check_plugin_files(files, folder, f"alignzoo {command} {shlex.quote(str(folder))}")
    plan = require(resolve(layers, distributed=distributed_backend()))
    if plan.settings.trust_remote_code and not trust_remote_code:
        raise UsageError(
            f"the run in {folder} lets its model run code, which a run folder cannot allow by itself",
            hint=f"if you trust the model: alignzoo {command} {shlex.quote(str(folder))} --trust-remote-code",
        )
    if trust_remote_code and not plan.settings.trust_remote_code:
        raise UsageError(
            f"the run in {folder} was started without --trust-remote-code, and a resumed run keeps its plan",
            hint="leave it out",
        )
    _check_unchanged(content, plan, path)
    return plan


def plan_layer(content: dict[str, Any], name: str) -> Layer:
    """What a run was given, as a recipe for another one: all but its folder, and its trust in code.

    Args:
        name: the run folder or its ``plan.yaml``, as the user named it.

    Raises:
        AlignzooError: the plan is damaged.
        UsageError: it needs a plugin file that the user has to name again.
    """
    try:
        values = {
            key: value
            for layer in _layers(content)
            for key, value in layer.values.items()
            if layer.origin not in DERIVED or key in KINDS
        }
        files = [str(plugin["file"]) for plugin in content.get("plugins") or () if plugin.get("file")]
    except (KeyError, TypeError, AttributeError) as error:
        raise AlignzooError(
            f"{name} is damaged: {error}", hint="write a recipe with the settings of that run"
        ) from error
    _check_plugin_files(files, name, f"alignzoo run --recipe {shlex.quote(name)}")
    values.pop("out", None)
    trusting = values.pop("trust-remote-code", None) in (True, "true")
    note = f"{name}: --trust-remote-code is not copied from it; set it yourself if you trust the model"
    return Layer(f"recipe:{name}", values, (note,) if trusting else ())


def _check_plugin_files(files: Sequence[str], where: Path | str, command: str) -> None:
    """Refuse a plan whose plugin files were not named on this command line."""
    absent = [file for file in files if Path(file) not in [given.resolve() for given in sources().files]]
    if absent:
        raise UsageError(
            f"the run in {where} uses the plugin file {absent[0]}, but a run folder cannot run code by itself",
            hint=f"name it again: {command}" + "".join(f" --plugin {shlex.quote(file)}" for file in files),
        )


def changed_plugins(folder: Path, plan: Plan) -> list[str]:
    """Notes on plugins of a run that have changed since it started."""
    then = _recorded(folder)
    remarks = []
    for plugin in [*used_plugins(plan), *_detected(folder)]:
        old = then.get(plugin.distribution, [])
        if any((was.get("version"), was.get("hash")) == (plugin.version, plugin.fingerprint()) for was in old):
            continue
        versions = sorted({str(was.get("version")) for was in old} - {plugin.version})
        if not old:
            what = "it was not installed then"
        else:
            what = f"it was {' or '.join(versions)} then" if versions else "its files have changed"
        remarks.append(
            f"plugin {plugin.label} ({plugin.entry_point}) has changed since this run started: {what}; "
            "the rest of the run may differ from its beginning"
        )
    return remarks


def _recorded(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What the run wrote down of the plugins at its start, by distribution: those it used, and those it saw."""
    entries = plan_as_started(folder)["plugins"]
    with contextlib.suppress(DamagedError):  # a run that was stopped early has no env.json
        seen = read_object(folder / "env.json").get("plugins")
        entries += [entry for entry in seen if isinstance(entry, dict)] if isinstance(seen, list) else []
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        found.setdefault(str(entry.get("distribution")), []).append(entry)
    return found


def _detected(folder: Path) -> list[Plugin]:
    """The plugins whose layouts the run's data was recognised by."""
    known = registry()
    names: set[str] = set()
    with contextlib.suppress(DamagedError):  # a run that was stopped early has no data.json
        facts = read_object(folder / "data.json")
        names = {str(summary.get("format")) for summary in facts.values() if isinstance(summary, dict)}
    return [plugin for plugin, card in known.extensions("format") if card.name in names]


def _anchored(content: dict[str, Any]) -> dict[str, Any]:
    """Local files and folders by their whole path, so that a run can be resumed from anywhere."""
    known = registry()
    for flag, kind in PATHS.items():
        stated = content["settings"][flag]
        value = stated["value"]
        named = kind is not None and known.named_extension(kind, value) is not None
        if isinstance(value, str) and not named and exists(value):
            stated["value"] = str(Path(value).resolve())
    return content


def _anchor_options(method: Method, stated: dict[str, Any]) -> None:
    """The same for options that are paths: of type ``Path``, or with ``Field(json_schema_extra={"path": True})``."""
    for name, field in method.card.options.model_fields.items():
        value = stated[name]["value"]
        if is_path(field) and isinstance(value, str) and value not in _words(field.annotation) and exists(value):
            stated[name]["value"] = str(Path(value).resolve())


def _words(annotation: Any) -> set[Any]:
    """The values that a ``Literal`` in the annotation names: these are not paths, whatever lies in the folder."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return {word for inner in get_args(annotation) for word in _words(inner)}


def _check_unchanged(content: dict[str, Any], plan: Plan, path: Path) -> None:
    """A newer alignzoo may have other defaults; a resumed run keeps those that it was started with."""
    now = plan_to_dict(plan)
    for then, group in ((content["settings"], now["settings"]), *_paired_options(content, now)):
        for name, stated in group.items():
            if name not in then or then[name]["value"] != stated["value"]:
                was = repr(then[name]["value"]) if name in then else "missing"
                raise AlignzooError(
                    f"{path}: {name} was {was} when the run started, but would now be {stated['value']!r}",
                    hint=f"resume it with alignzoo {content.get('alignzoo')}, or start a new run with another --out",
                )


def _paired_options(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The options of each method, as stated then and now; kinds that are newer than the plan are left out."""
    before, after = stated_methods(then), stated_methods(now)
    return [
        ({**old["options"], **_weight_of(old)}, {**new["options"], **_weight_of(new)})
        for kind in before
        for old, new in zip(before[kind], after[kind], strict=bool(before[kind]))
    ]


def _weight_of(method: dict[str, Any]) -> dict[str, Any]:
    return {WEIGHT: method[WEIGHT]} if WEIGHT in method else {}


def _layers(content: dict[str, Any]) -> list[Layer]:
    """One layer for each origin, so that the origins survive a resume."""
    values: dict[str, dict[str, Any]] = {}
    for word, stated in stated_values(content).items():
        if stated["from"] not in (DEFAULT, PRESET):
            values.setdefault(stated["from"], {})[word] = stated["value"]
    names: dict[str, Any] = {}
    for kind, methods in stated_methods(content).items():
        named = [f"{method['from']}:{method['name']}" for method in methods]
        if KINDS[kind].several:
            names[kind] = named
        elif named:
            names[kind] = named[0]
    layers = [Layer(origin, {**layer, **names}) for origin, layer in values.items()]
    return layers or [Layer("plan", names)]
