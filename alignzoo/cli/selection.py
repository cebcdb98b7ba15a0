"""Which methods a command line speaks of, looked at before it is parsed: their options become flags of that line."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from alignzoo.contract.card import Card, Composition, Need
from alignzoo.contract.robust import NO_WRAPPER
from alignzoo.errors import AlignzooError
from alignzoo.plan.plan import default_reward
from alignzoo.plan.recipe import METHOD_KINDS, read_recipe
from alignzoo.plan.resolve import DEFAULT_LOSS, is_companion, with_gradient
from alignzoo.plugin.build import build_options, default_needs
from alignzoo.plugin.registry import registry


@dataclass(frozen=True)
class Selection:
    """The methods of a line, and the kinds of which some name could not be found."""

    cards: tuple[Card, ...]
    unresolved: frozenset[str]


def selected(args: Sequence[str]) -> Selection:
    """The methods named on the line or in its recipes, compositions taken apart; the defaults where none is."""
    names: dict[str, list[str]] = {"loss": [DEFAULT_LOSS], "robust": [], "geometry": [], "reward": []}
    unresolved: set[str] = set()
    given: dict[str, Any] = {}
    for recipe in _values(args, "recipe"):
        try:
            values = read_recipe(recipe).values
        except AlignzooError:
            unresolved.update(METHOD_KINDS)
            continue
        given |= values
        for kind in names:
            if kind in values:
                names[kind] = values[kind] if isinstance(values[kind], list) else [values[kind]]
    given |= _typed(args)
    for kind in names:
        typed = _values(args, kind)
        names[kind] = (typed[-1:] if kind in ("loss", "reward") else typed) or names[kind]
    names["robust"] = [name for name in names["robust"] if name != NO_WRAPPER]
    names = _taken_apart(names)
    names["geometry"] = with_gradient(names["geometry"], registry())
    cards: list[Card] = []
    for kind, named in names.items():
        if kind == "reward" and not named:
            default = default_reward(frozenset().union(*(_needs(card, given) for card in cards)))
            named = [default] if default is not None else []
        for name in named:
            try:
                card = cast(Card, registry().find(kind, name))
            except AlignzooError:
                unresolved.add(kind)
                continue
            if card not in cards:
                cards.append(card)
    return Selection(tuple(cards), frozenset(unresolved))


def _needs(card: Card, given: Mapping[str, Any]) -> frozenset[Need]:
    """What a method needs with those of its options that are given, as far as they make sense."""
    values = {}
    for name in card.options.model_fields:
        for key in (f"{card.kind}.{name}", f"{card.kind}.{card.name}.{name}"):
            if key in given:
                values[name] = given[key]
    try:
        return card.needs | build_options(card, values).needs()
    except AlignzooError:
        return default_needs(card)


def _typed(args: Sequence[str]) -> dict[str, str]:
    """What is typed after each ``--flag``, or behind its ``=``; a switch has its yes or no."""
    found: dict[str, str] = {}
    for word, following in itertools.pairwise([*args, "--"]):
        name, stated, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not stated and following.startswith("--"):
            found[name.removeprefix("no-")] = "no" if name.startswith("no-") else "yes"
        elif word.startswith("--"):
            found[name] = value if stated else following
    return found


def _values(args: Sequence[str], flag: str) -> list[str]:
    """What is typed after ``--flag``, in both spellings."""
    after = [following for word, following in itertools.pairwise(args) if word == f"--{flag}"]
    return after + [word.partition("=")[2] for word in args if word.startswith(f"--{flag}=")]


def _taken_apart(names: dict[str, list[str]]) -> dict[str, list[str]]:
    """A composition given as the loss, replaced by its parts."""
    try:
        loss = registry().find("loss", names["loss"][0])
    except AlignzooError:
        return names
    if not isinstance(loss, Composition):
        return names
    home = registry().distribution_of(loss)
    return {
        "loss": [registry().at_home("loss", loss.loss, home)],
        "robust": [*(registry().at_home("robust", name, home) for name in loss.robust), *names["robust"]],
        "geometry": [
            *([registry().at_home("geometry", loss.geometry, home)] if loss.geometry else []),
            *(name for name in names["geometry"] if not loss.geometry or is_companion(name, registry())),
        ],
        "reward": names["reward"],
    }
