"""The methods of a bench: losses on their own, wrappers and controllers on DPO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.base.suggest import suggest
from alignzoo.contract.card import Card
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.loss import LossCard
from alignzoo.errors import UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer, read_recipe
from alignzoo.plan.resolve import resolve
from alignzoo.plugin.registry import registry

BASE = "dpo"
"""The loss under wrappers and controllers, and the baseline."""
COMPARED = ("loss", "robust", "geometry")


@dataclass(frozen=True)
class Entry:
    """A method of a bench.

    Attributes:
        label: its name; with its kind in front if an earlier kind has a method of that name.
    """

    label: str
    kind: str
    name: str

    @property
    def words(self) -> dict[str, Any]:
        """What sets it."""
        return {"loss": BASE} | {self.kind: [self.name] if KINDS[self.kind].multiplicity == "stack" else self.name}


def all_entries() -> list[Entry]:
    """Every loss, wrapper and controller that is not experimental; published names for combinations are left out, and
    the plain gradient, which is the baseline."""
    plain = str(KINDS["geometry"].default).rpartition(":")[2]
    found: dict[str, Entry] = {}
    for kind in COMPARED:
        for _, card in registry().entries(kind):
            if isinstance(card, Card) and not card.experimental and card.name != plain:
                label = card.name if card.name not in found else f"{kind}={card.name}"
                found[label] = Entry(label, kind, card.name)
    return list(found.values())


def chosen_entries(names: Sequence[str]) -> list[Entry]:
    """The entries of these labels, and the baseline; all of them if none is named.

    Raises:
        UsageError: a label is unknown.
    """
    known = {entry.label: entry for entry in all_entries()}
    if not names:
        return list(known.values())
    for name in names:
        if name not in known:
            hint = suggest(name, known) or "`alignzoo ls loss`, `ls robust` and `ls geometry` list them"
            raise UsageError(f"--methods: unknown method {name!r}", hint=hint)
    return [known[name] for name in dict.fromkeys([BASE, *names])]


def world_layer(world: str, settings: Mapping[str, Any]) -> Layer:
    """The settings of a world's recipe, without its methods and their options, and those of the command line.

    Raises:
        UsageError: there is no such world.
    """
    recipe = read_recipe(world)
    words = {word: value for word, value in recipe.values.items() if word.partition(".")[0] not in KINDS}
    return Layer("bench", {**words, **settings})


def unsuitable(entry: Entry, world: Layer, columns: Iterable[str]) -> str | None:
    """Why a method cannot run in a world; None if it can.

    Args:
        columns: of the world's rows of pairs.
    """
    from alignzoo.data.asked import COLUMNS
    from alignzoo.data.extras import source_columns
    from alignzoo.data.shapes import readable

    resolved = resolve([world, Layer("bench", entry.words)])
    if not isinstance(resolved, Plan):
        return resolved[0].message
    present = set(columns)
    for need, column in COLUMNS.items():
        if need in resolved.needs and not present & set(source_columns(column, "pairs")):
            return f"the world's pairs have no {need}"
    losses = [(method.card, method.needs) for method in resolved.of("loss")]
    reasons = (readable(card.reads, needs, "pairs") for card, needs in losses if isinstance(card, LossCard))
    return next((reason for reason in reasons if reason is not None), None)


def columns_of(world: Layer) -> list[str]:
    """The columns of a world's training pairs.

    Raises:
        UsageError: its data is no data of a plugin.
    """
    from alignzoo.plan.extensions import data_of
    from alignzoo.plugin.build import import_target

    card = data_of(world.values.get("data"), registry())
    if card is None:
        raise UsageError(
            f"{world.values.get('data')} is no embedded data",
            hint="name a recipe of an embedded world, as --world world2",
        )
    return list(next(iter(import_target(card)().rows("train"))))
