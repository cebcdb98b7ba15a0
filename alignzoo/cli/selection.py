"""The methods named on a command line, found before parsing so that their options become flags."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError
from alignzoo.plan.picks import Selection
from alignzoo.plan.recipe import Layer, read_recipe
from alignzoo.plan.select import grounded, select


@dataclass(frozen=True)
class Words:
    """A command line before it is parsed.

    Attributes:
        recipes: the content of each ``--recipe``, read once; or why it cannot be read.
        found: the methods that the recipes and the line name.
    """

    recipes: dict[str, Layer | AlignzooError]
    found: Selection

    def recipe(self, name: str) -> Layer:
        """A recipe of the line.

        Raises:
            AlignzooError: it cannot be read.
        """
        layer = self.recipes[name] if name in self.recipes else read_recipe(name)
        if isinstance(layer, AlignzooError):
            raise layer
        return layer


def words_of(args: Sequence[str]) -> Words:
    """The recipes and methods of a line; the command itself reports mistakes in them."""
    typed = _typed(args)
    recipes = {name: _read(name) for name in typed.get("recipe", [])}
    layers = [layer for layer in recipes.values() if isinstance(layer, Layer)]
    found = select(grounded([*layers, Layer("flag", _as_values(typed))]))
    if len(layers) < len(recipes):
        found.unresolved.update(KINDS)
    return Words(recipes, found)


def _read(name: str) -> Layer | AlignzooError:
    try:
        return read_recipe(name)
    except AlignzooError as error:
        return error


def _typed(args: Sequence[str]) -> dict[str, list[str]]:
    """The values typed after each ``--flag`` or its ``=``; a switch has its yes or no."""
    found: dict[str, list[str]] = {}
    for word, following in itertools.pairwise([*args, "--"]):
        name, stated, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            continue
        if not stated and following.startswith("--"):
            name, value = name.removeprefix("no-"), "no" if name.startswith("no-") else "yes"
        found.setdefault(name, []).append(value if stated or following.startswith("--") else following)
    return found


def _as_values(typed: dict[str, list[str]]) -> dict[str, Any]:
    """As a layer: the last value of each option, and all names of kinds that can have several methods."""
    several = {name for name, kind in KINDS.items() if kind.several}
    return {name: values if name in several else values[-1] for name, values in typed.items()}
