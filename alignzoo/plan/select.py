"""From layers of settings to a run's methods: expands compositions, adds defaults, and collects options with origins.

The one way from words to methods: ``resolve`` makes a plan of it, a command line makes its flags of it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from alignzoo.base.shown import shown
from alignzoo.contract.card import NONE, Card, Composition, Need
from alignzoo.contract.kinds import KINDS, Kind
from alignzoo.errors import AlignzooError, IncompatibleError, UsageError
from alignzoo.plan.leading import put_wrapped_first
from alignzoo.plan.options import values_of, weight_of
from alignzoo.plan.picks import Pick, Selection, is_companion
from alignzoo.plan.plan import Method
from alignzoo.plan.recipe import Layer, read_recipe
from alignzoo.plan.settings import EMBEDDED
from alignzoo.plugin.build import build_options, readers
from alignzoo.plugin.registry import Registry, registry

DEFAULT_RECIPE = f"alignzoo:{EMBEDDED}"


def grounded(layers: Sequence[Layer]) -> list[Layer]:
    """The layers on that of the shipped recipe, where they name neither model nor data: the embedded world."""
    named = any(key in layer.values for layer in layers for key in ("model", "data"))
    return list(layers) if named else [_ground(), *layers]


@functools.cache
def _ground() -> Layer:
    return read_recipe(DEFAULT_RECIPE)


def select(layers: Sequence[Layer], methods: Registry | None = None) -> Selection:
    """The methods that layered words ask for, weakest layer first."""
    return _Selecting(layers, methods or registry()).run()


def as_list(names: str | Sequence[str]) -> list[str]:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def speaks_of(layer: Layer, kind: Kind, pick: Pick, methods: Registry) -> bool:
    """Whether a layer's bare ``kind.option`` words mean this method: a layer that names another one does not."""
    named = layer.values.get(kind.name)
    if named is None or kind.multiplicity == "stack":
        return True
    return any(name in pick.called or _means(kind, name, pick.card, methods) for name in as_list(named))


def _means(kind: Kind, name: str, card: Card, methods: Registry) -> bool:
    try:
        method = methods.find(kind.name, name)
    except AlignzooError:
        return False
    return method is card or (isinstance(method, Composition) and card.name in method.parts[kind.name])


def owners(option: str, cards: Sequence[Card]) -> list[str]:
    """The flags ``--KIND.option`` of the methods that have it."""
    return list(dict.fromkeys(f"--{card.kind}.{option}" for card in cards if option in card.options.model_fields))


class _Selecting:
    """The state of :func:`select`."""

    def __init__(self, layers: Sequence[Layer], methods: Registry) -> None:
        self.layers = layers
        self.registry = methods
        self.found = Selection({kind: [] for kind in KINDS})

    def run(self) -> Selection:
        self._take_named()
        derived = [kind for kind in KINDS.values() if callable(kind.default)]
        for kind in KINDS.values():
            if kind not in derived:
                self._add_default(kind)
                self._build(kind)
        for kind in derived:
            self._add_derived(kind)
            self._build(kind)
        return self.found

    def _take_named(self) -> None:
        """What the words name, each composition replaced by its parts."""
        brought: dict[str, list[Pick]] = {kind: [] for kind in KINDS}
        for kind_name in KINDS:
            for name in self._names(kind_name):
                self._take(kind_name, name, {name}, brought, ())
        for kind in KINDS.values():
            if kind.multiplicity == "mixture":
                put_wrapped_first(kind, self.found, brought)
        for kind in KINDS.values():
            self._join(kind, brought[kind.name])

    def _names(self, kind: str) -> list[str]:
        """The names of the strongest layer that has some."""
        named: Any = next((layer.values[kind] for layer in reversed(self.layers) if kind in layer.values), [])
        return [name for name in as_list(named) if name != NONE or KINDS[kind].multiplicity != "stack"]

    def _take(
        self,
        kind: str,
        name: str,
        called: set[str],
        brought: dict[str, list[Pick]],
        inside: tuple[Composition, ...],
    ) -> None:
        """One name: its method, or the parts of its composition."""
        method = self._find(kind, name)
        if isinstance(method, Card):
            pick = Pick(method, {method.name, *called}, inside[0] if inside else None)
            if inside and kind != inside[0].kind:
                brought[kind].append(pick)
            else:
                self.found.picks[kind].append(pick)
        elif method in inside:
            self.found.problems.append(
                UsageError(f"the composition {inside[0].name} contains itself: {inside[0].flags()}")
            )
        elif method is not None:
            if not inside:
                self.found.notes.append(f"--{kind} {method.name} is short for {method.flags()}")
            home = self.registry.distribution_of(method)
            for part_kind, parts in method.parts.items():
                also = {*called, method.name} if part_kind == kind else set[str]()
                for part in parts:
                    at_home = self.registry.at_home(part_kind, part, home)
                    self._take(part_kind, at_home, also | {at_home}, brought, (*inside, method))

    def _join(self, kind: Kind, brought: Sequence[Pick]) -> None:
        """The parts that compositions of other kinds bring, put to what was named: in front of a stack; elsewhere they
        may not meet another one."""
        picks = self.found.picks[kind.name]
        there = [pick.card for pick in picks]
        new = [pick for pick in brought if pick.card not in there]
        room = kind.multiplicity == "stack"
        for pick in new:
            assert pick.by is not None
            rivals = [] if room else [p.card.name for p in picks if is_companion(p.card) == is_companion(pick.card)]
            if rivals and not is_companion(pick.card):
                named = f"--{kind.name} {pick.card.name}"
                self.found.problems.append(
                    IncompatibleError(
                        f"{pick.by.name} already implies {named}, so it cannot be combined with --{kind.name} "
                        f"{rivals[0]}",
                        hint=f"name the parts yourself: {pick.by.flags()}",
                    )
                )
        picks[:0] = new

    def _find(self, kind: str, name: str) -> Card | Composition | None:
        try:
            return self.registry.find(kind, name)
        except AlignzooError as error:
            self.found.problems.append(self._several_in_one(kind, name) or error)
            self.found.unresolved.add(kind)
            return None

    def _several_in_one(self, kind: str, name: str) -> UsageError | None:
        """The error about names that are joined by commas; None where it is not that."""
        names = [part.strip() for part in name.split(",")]
        if len(names) == 1 or not KINDS[kind].several:
            return None
        layer = next((layer for layer in reversed(self.layers) if name in as_list(layer.values.get(kind, []))), None)
        if layer is not None and layer.origin.startswith("recipe:"):
            hint = f"write a list: `{kind}: [{', '.join(names)}]`"
        else:
            hint = "repeat the flag: " + " ".join(f"--{kind} {part}" for part in names)
        return UsageError(f"{shown(name)} is not one {kind} but {len(names)}", hint=hint)

    def _add_default(self, kind: Kind) -> None:
        """The default, where nothing was named; beside companions, the one that they accompany goes first."""
        picks = self.found.picks[kind.name]
        picks.sort(key=lambda pick: is_companion(pick.card))
        alone = all(is_companion(pick.card) for pick in picks)
        if isinstance(kind.default, str) and alone and kind.name not in self.found.unresolved:
            card = self._find(kind.name, kind.default)
            if isinstance(card, Card):
                picks.insert(0, Pick(card, {card.name, kind.default}))

    def _add_derived(self, kind: Kind) -> None:
        """The default that follows from the other methods, where nothing was named."""
        assert callable(kind.default)
        picks = self.found.picks[kind.name]
        others = {name: some for name, some in self.found.picks.items() if name != kind.name and not KINDS[name].early}
        needs = frozenset[Need]().union(*(pick.needs for some in others.values() for pick in some))
        if picks and kind.serves and not needs & kind.serves and not self.found.problems:
            self.found.problems.append(self._idle(kind, picks[0].card))
        if not picks and kind.name not in self.found.unresolved:
            cards = {name: [pick.card for pick in some] for name, some in others.items()}
            for name in kind.default(cards, needs):
                card = self._find(kind.name, name)
                picks += [Pick(card, {card.name, name})] if isinstance(card, Card) else []

    def _idle(self, kind: Kind, card: Card) -> UsageError:
        """The error for a method that nothing in this run needs."""
        named = [f"--{reader.kind} {reader.name}" for reader in readers(kind, self.registry)]
        return UsageError(
            f"--{kind.name} {card.name} has no effect here: no method of this run needs a {kind.noun}",
            hint=f"add a method that does ({', '.join(named)}), or leave it out",
        )

    def _build(self, kind: Kind) -> None:
        """The methods of a kind, with their options."""
        picks = self.found.picks[kind.name]
        for pick in picks:
            heard = [layer for layer in self.layers if speaks_of(layer, kind, pick, self.registry)]
            try:
                values, origins = values_of(heard, kind, pick.card, pick.called, alone=len(picks) == 1)
                weight = weight_of(kind, pick.card, values)
                self._check_names(pick.card, values)
                options = build_options(pick.card, values)
            except AlignzooError as error:
                self.found.problems.append(error)
                continue
            pick.method = Method(pick.card, self.registry.distribution_of(pick.card), options, origins, weight)

    def _check_names(self, card: Card, values: dict[str, Any]) -> None:
        """Refuse an option that is one of another method of this run: the parts of a composition share its words."""
        for option in values:
            elsewhere = owners(option, self.found.cards)
            if option not in card.options.model_fields and elsewhere:
                raise UsageError(
                    f"{card.kind} {card.name!r} has no option {shown(option)}",
                    hint=f"did you mean {' or '.join(elsewhere)}?",
                )
