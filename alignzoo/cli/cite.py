"""``alignzoo cite``: BibTeX of what methods, recipes and runs are based on."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from alignzoo.base.safe_yaml import YAMLFault, read_yaml
from alignzoo.base.suggest import suggest
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines
from alignzoo.cli.describe import paper_dict, parts_of
from alignzoo.cli.named import Entry, find_methods, methods_named
from alignzoo.contract.card import Composition
from alignzoo.contract.paper import Paper, bibtex_entry
from alignzoo.errors import UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer, find_recipe, is_plan, read_recipe, recipe_names
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.started import PLAN_FILE, stated_methods
from alignzoo.plugin.faults import is_file
from alignzoo.plugin.registry import registry
from alignzoo.version import __version__

STAGES_FILE = "stages.json"
"""In the folder of a run of several stages, each in a folder of its own."""


@cli_command("cite")
@click.argument("names", nargs=-1, required=True, metavar="NAME|RECIPE|RUN-FOLDER...")
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Print BibTeX for everything that methods, recipes or runs use: papers, and alignzoo itself.

    A published name for a combination is cited when a run has all of its parts, however they were spelled.
    """
    found = {id(method): (plugin, method) for name in names for plugin, method in entries_of(name)}
    entries = list(found.values())
    of_recipes = _recipe_papers(names)
    cited = [
        *of_recipes,
        *(one for one in by_paper(entries) if one[1].arxiv not in {p.arxiv for _, p, _ in of_recipes}),
    ]
    without = [f"{method.kind} {method.name}" for _, method in entries if method.paper is None]
    if as_json:
        facts = [
            {
                "key": key,
                "methods": [{"kind": method.kind, "name": method.name} for _, method in of_it],
                "paper": paper_dict(paper),
                "bibtex": paper.bibtex(key),
            }
            for key, paper, of_it in cited
        ]
        own = {"key": "alignzoo", "bibtex": software()}
        print_json({"papers": facts, "software": own, "unpublished": without, "recipes": _described(names)})
        return
    for name, description in _described(names).items():
        print_lines(f"% recipe {name}: {description}", "")
    for key, paper, of_it in cited:
        if of_it:
            print_lines(f"% {', '.join(f'{method.kind} {method.name}' for _, method in of_it)}")
        print_lines(paper.bibtex(key), "")
    print_lines("% the software", software())
    if without:
        print_lines("", f"% without a paper: {', '.join(without)}")


def entries_of(name: str) -> list[Entry]:
    """The methods of a run, of a recipe, or of that name, with the parts of compositions.

    Raises:
        UsageError: it is none of these.
    """
    folder = Path(name)
    if is_file(folder / STAGES_FILE):
        return [entry for path in sorted(folder.glob(f"*/{PLAN_FILE}")) for entry in _of_content(str(path))]
    path = next((path for path in (folder / PLAN_FILE, folder) if is_file(path)), None)
    if path is not None:
        return _of_content(str(path))
    named = methods_named(name)
    of_recipe = _of_content(name) if registry().find_recipe(name) is not None else []
    if named or of_recipe:
        return [*of_recipe, *(one for entry in named for one in _with_parts(entry))]
    if folder.is_dir():
        raise UsageError(f"{name} is not a run folder: it contains no {PLAN_FILE}", hint="use the --out of a run")
    known = dict.fromkeys([*recipe_names(), *(method.name for _, method in registry().entries())])
    raise UsageError(
        f"{name!r} is neither a method nor a recipe nor a run folder",
        hint=suggest(name, known) or "`alignzoo ls` and `alignzoo recipes` list the names",
    )


def _of_content(name: str) -> list[Entry]:
    """The methods of a recipe or plan by name or path."""
    try:
        content = read_yaml(find_recipe(name))
    except YAMLFault as error:
        raise UsageError(f"{error}; neither a recipe nor a plan", hint="name a method, a recipe or a run") from error
    if isinstance(content, dict) and is_plan(content):  # as it was run: without its data, model or trust
        used = [
            (kind, f"{method['from']}:{method['name']}")
            for kind, methods in stated_methods(content).items()
            for method in methods
        ]
    else:
        used = [(method.card.kind, method.qualified) for plan in _plans(name) for method in plan.all_methods]
    entries = [entry for kind, qualified in dict.fromkeys(used) for entry in find_methods(qualified, kind)]
    return _with_compositions(entries)


def _plans(recipe: str) -> list[Plan]:
    """The plans of a recipe: one, or that of each stage."""
    anything = Layer("cite", {"model": "any", "data": "any"})  # a recipe may leave them to the command line
    layer = read_recipe(recipe)
    if not layer.stages:
        return [require(resolve([anything, layer]))]
    from alignzoo.stages.parse import parse_stages

    return [stage.plan for stage in parse_stages([anything, layer], Path("runs") / "cite") if stage.plan is not None]


def _recipe_papers(names: Sequence[str]) -> list[tuple[str, Paper, list[Entry]]]:
    """``(key, paper, no methods)`` of the recipes among some names that are published under their own."""
    found: list[tuple[str, Paper, list[Entry]]] = []
    for name in names:
        path = registry().find_recipe(name) if not Path(name).is_dir() else None
        path = path or next((path for path in [Path(name)] if is_file(path)), None)
        content = read_yaml(path) if path is not None else None
        if isinstance(content, dict) and "paper" in content:
            try:
                paper = Paper.model_validate(content["paper"])
            except ValueError as error:
                raise UsageError(f"{path}: paper is not valid: {error}", hint="it has title, arxiv, authors") from error
            if paper.arxiv not in [other.arxiv for _, other, _ in found]:
                found.append((paper.key(Path(name).stem), paper, []))
    return found


def _described(names: Sequence[str]) -> dict[str, str]:
    """The descriptions of the recipes among some names; those that are published name their paper."""
    found = {name: registry().find_recipe(name) for name in names if not Path(name).exists()}
    contents = {name: read_yaml(path) for name, path in found.items() if path is not None}
    return {name: str(content["description"]) for name, content in contents.items() if "description" in content}


def _with_parts(entry: Entry) -> list[Entry]:
    plugin, method = entry
    if not isinstance(method, Composition):
        return [entry]
    return [entry, *((registry().plugin_of(part), part) for part in parts_of(plugin, method))]


def _with_compositions(entries: Sequence[Entry]) -> list[Entry]:
    """The methods of a run after the published names of combinations whose parts are all among them."""
    used = [id(method) for _, method in entries]

    def is_used(entry: Entry) -> bool:
        plugin, method = entry
        if not isinstance(method, Composition):
            return False
        parts = parts_of(plugin, method)
        return len(parts) == sum(map(len, method.parts.values())) and all(id(part) in used for part in parts)

    return [*(entry for entry in registry().entries() if is_used(entry)), *entries]


def by_paper(entries: Iterable[Entry]) -> list[tuple[str, Paper, list[Entry]]]:
    """``(key, paper, methods)`` of every paper once; keys that would be the same get a letter."""
    found: dict[str, tuple[Paper, list[Entry]]] = {}
    for plugin, method in entries:
        if method.paper is not None:
            identity = method.paper.arxiv or method.paper.title.casefold()
            found.setdefault(identity, (method.paper, []))[1].append((plugin, method))
    keys = [paper.key(of_it[0][1].name) for paper, of_it in found.values()]
    letters = [string.ascii_lowercase[keys[:i].count(key)] if keys.count(key) > 1 else "" for i, key in enumerate(keys)]
    return [(key + letter, *entry) for key, letter, entry in zip(keys, letters, found.values(), strict=True)]


def software() -> str:
    """The BibTeX entry of this release."""
    fields = {
        "author": "{The alignzoo developers}",
        "title": "{alignzoo: any preference loss, any stack of robust wrappers, any geometry controller}",
        "note": f"Version {__version__}",
    }
    return bibtex_entry("misc", "alignzoo", fields)
