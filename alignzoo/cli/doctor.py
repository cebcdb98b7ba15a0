"""``alignzoo doctor``: checks that everything a run needs is installed, and says how to fix what is not."""

from __future__ import annotations

import importlib.metadata
import platform
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table, results_only
from alignzoo.cli.environment import cache_folder, devices, extras, free_gb, ranks, required_packages, target_problems
from alignzoo.errors import AlignzooError
from alignzoo.plan.settings import EMBEDDED
from alignzoo.plugin.build import import_target
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry
from alignzoo.version import __version__


@cli_command("doctor")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check versions, plugins, devices and disk space, and report what is missing.

    Exit code 1 if a required package is missing or too old, or a plugin is broken.
    """
    with results_only():
        facts = _examine()
    if as_json:
        print_json(facts)
    else:
        _show(facts)
    if facts["problems"]:
        ctx.exit(1)


def _examine() -> dict[str, Any]:
    problems: list[str] = []
    facts: dict[str, Any] = {"alignzoo": __version__, "python": platform.python_version()}
    try:
        packages = required_packages()
    except importlib.metadata.PackageNotFoundError:
        packages = []
        problems.append("alignzoo is not installed, so no methods are registered: run pip install -e . in its folder")
    problems += [package.problem for package in packages if package.problem]
    facts["packages"] = [asdict(package) for package in packages]
    facts["extras"] = [asdict(extra) for extra in extras()]
    facts["devices"] = _devices(problems)
    facts["ranks"] = ranks() if facts["devices"] else None
    facts["plugins"] = _plugins(problems)
    facts["warnings"] = _warnings()
    facts["cache"] = {"folder": str(cache_folder()), "free_gb": round(free_gb(cache_folder()), 1)}
    facts["here"] = {"folder": str(Path.cwd()), "free_gb": round(free_gb(Path.cwd()), 1)}
    facts[EMBEDDED] = _embedded(problems)
    return {**facts, "problems": problems, "ok": not problems}


def _devices(problems: list[str]) -> list[dict[str, Any]]:
    try:
        return [asdict(device) for device in devices()]
    except Exception as error:  # a broken torch fails in many ways, and detecting that is the point
        problems.append(f"torch does not work: {traceback.format_exception_only(error)[-1].strip()}")
        return []


def _plugins(problems: list[str]) -> list[dict[str, Any]]:
    found = []
    for plugin in registry().plugins:
        errors = [plugin.error] if plugin.error else target_problems(plugin)
        found.append({**plugin.to_dict(), "error": "; ".join(errors) or None})
        advice = f"fix {plugin.file}" if plugin.file else f"upgrade or uninstall {plugin.distribution}"
        problems += [f"plugin {plugin.label} is broken: {error} ({advice})" for error in errors]
    return found


def _warnings() -> list[str]:
    """Problems with plugins that break nothing."""
    known = registry()
    said = [f"plugin {plugin.label}: {text}" for plugin in known.plugins for text in plugin.remarks]
    both = [f"{kind} {name!r} is provided by {', '.join(homes)}" for kind, name, homes in known.duplicates()]
    return [*said, *both]


def _embedded(problems: list[str]) -> bool:
    """Whether the embedded model, the default, is complete."""
    try:
        folder = Path(import_target(registry().find_extension("model", f"{OWN_DISTRIBUTION}:{EMBEDDED}"))())
    except AlignzooError as error:
        problems.append(str(error))
        return False
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        problems.append(f"the {EMBEDDED} model lacks {' and '.join(missing)} in {folder}: reinstall alignzoo")
    return not missing


def _show(facts: dict[str, Any]) -> None:
    print_lines(f"alignzoo {facts['alignzoo']}, Python {facts['python']}", "")
    print_table(["package", "version", "needed"], [_package_row(package) for package in facts["packages"]])
    print_lines("")
    print_table(
        ["optional", "", "for"],
        [[extra["name"], "present" if extra["present"] else "missing", extra["purpose"]] for extra in facts["extras"]],
    )
    missing = [extra["name"] for extra in facts["extras"] if not extra["present"]]
    if missing:
        print_lines(f"to install: pip install 'alignzoo[{','.join(missing)}]'")
    print_lines("")
    print_table(["plugin", "entry point", "methods", "state"], [_plugin_row(plugin) for plugin in facts["plugins"]])
    print_lines("")
    print_table(["device", "name", "memory", "bf16"], [_device_row(device) for device in facts["devices"]])
    if facts["ranks"]:
        auto, backends = facts["ranks"]["auto"], facts["ranks"]["communication"]
        many = "1 process" if auto == 1 else f"{auto} processes"
        print_lines(f"--devices auto: {many}; communication: {', '.join(backends) or 'none'}")
    print_lines(
        "",
        f"cache for models and data: {facts['cache']['folder']}, {facts['cache']['free_gb']} GiB free",
        f"current folder: {facts['here']['folder']}, {facts['here']['free_gb']} GiB free",
        f"{EMBEDDED}: {'present' if facts[EMBEDDED] else 'missing'}",
        "",
        *([] if facts["problems"] else ["no problems found"]),
        *(f"warning: {text}" for text in facts["warnings"]),
        *(f"problem: {problem}" for problem in facts["problems"]),
    )


def _package_row(package: dict[str, Any]) -> list[str]:
    minimum = package["minimum"]
    return [package["name"], package["version"] or "missing", f">= {minimum}" if minimum else "-"]


def _plugin_row(plugin: dict[str, Any]) -> list[str]:
    return [
        f"{plugin['distribution']} {plugin['version']}".rstrip(),
        plugin["entry_point"],
        str(len(plugin["methods"])),
        "broken" if plugin["error"] else "ok",
    ]


def _device_row(device: dict[str, Any]) -> list[str]:
    memory = "?" if device["memory_gb"] is None else f"{device['memory_gb']:.1f} GiB"
    return [device["kind"], device["name"], memory, {True: "native", False: "slow", None: "?"}[device["bf16"]]]
