"""alignzoo's own extensions besides methods: the shipped recipes."""

from __future__ import annotations

from pathlib import Path

from alignzoo.plugin.hookspecs import hookimpl


@hookimpl
def alignzoo_recipes() -> list[Path]:
    """The shipped recipes: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return sorted((inside if inside.is_dir() else package.parent / "recipes").glob("*.yaml"))
