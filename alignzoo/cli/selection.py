"""Which methods a command line speaks of, looked at before it is parsed: their options become flags of that line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError
from alignzoo.plan.recipe import Layer, read_recipe
from alignzoo.plan.select import Selection, grounded, select


@dataclass(frozen=True)
class Words:
    """A command line before it is parsed.

    Attributes:
        recipes: what each ``--recipe`` names, read once; or why it cannot be read.
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
    """The recipes and methods of a line; mistakes in them are left to the command."""
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
    """All that is typed after each ``--flag``, or behind its ``=``; a switch has its yes or no."""
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
    """As a layer has them: the last value of each word, all names of a kind of which a run may have several."""
    several = {name for name, kind in KINDS.items() if kind.several}
    return {name: values if name in several else values[-1] for name, values in typed.items()}
