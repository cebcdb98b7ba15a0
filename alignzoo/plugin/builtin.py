"""What alignzoo itself brings beside its methods: the shipped recipes and the sandbox's judge."""

from __future__ import annotations

from pathlib import Path

from alignzoo.contract.card import Extension
from alignzoo.plugin.hookspecs import hookimpl


@hookimpl
def alignzoo_recipes() -> list[Path]:
    """The shipped recipes: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return sorted((inside if inside.is_dir() else package.parent / "recipes").glob("*.yaml"))


@hookimpl
def alignzoo_judges() -> list[Extension]:
    """The judge of the sandbox's grammar."""
    return [
        Extension(
            kind="judge",
            name="sandbox",
            target="alignzoo.sandbox.judge:judge",
            summary="exact: the sandbox's own grammar says what an answer is",
        )
    ]
