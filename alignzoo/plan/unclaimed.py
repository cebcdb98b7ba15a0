"""Options that no method of a run has."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.base.shown import shown
from alignzoo.base.suggest import nearest
from alignzoo.contract.card import WEIGHT, Card
from alignzoo.contract.kinds import KINDS, Kind
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.picks import Pick, Selection
from alignzoo.plan.recipe import Layer
from alignzoo.plan.select import owners, speaks_of
from alignzoo.plugin.registry import Registry


def unclaimed(layers: Sequence[Layer], found: Selection, methods: Registry) -> list[AlignzooError]:
    """Options that no method of a kind has, and options of methods that were not chosen."""
    problems: list[AlignzooError] = []
    for kind in KINDS.values():
        picks = found.picks[kind.name]
        alone = len(picks) == 1 and kind.multiplicity != "stack"
        for i, layer in enumerate(layers):
            if alone and not speaks_of(layer, kind, picks[0], methods):
                continue
            words = [key.split(".") for key in layer.values if key.startswith(f"{kind.name}.")]
            # Bare options of a method that stands alone were judged when it was built.
            judged = [parts for parts in words if not (alone and len(parts) == 2 and parts[1] != WEIGHT)]
            if any(kind.name in later.values for later in layers[i + 1 :]):  # which drop methods with their options
                here = {name for pick in picks for name in pick.called}
                judged = [parts for parts in judged if len(parts) < 3 or parts[1] in here]
                judged = [parts for parts in judged if not (alone and parts[-1] == WEIGHT)]
            found_here = (_problem(kind, parts[1:], picks, found.cards, methods) for parts in judged)
            problems += [problem for problem in found_here if problem is not None]
    return problems


def _problem(
    kind: Kind, parts: list[str], picks: Sequence[Pick], cards: Sequence[Card], methods: Registry
) -> UsageError | None:
    """What is wrong with ``[option]`` or ``[owner, ..., option]``, if anything is."""
    *owner, option = parts
    key = ".".join([kind.name, *parts])
    fields = {name for pick in picks for name in pick.card.options.model_fields}
    owned = len(owner) == 1 and any(owner[0] in pick.called for pick in picks)
    if option == WEIGHT and WEIGHT not in fields and kind.multiplicity == "mixture" and (owned or not owner):
        return _misplaced_weight(kind, key, owned, picks)
    if owned or (not owner and option in fields):
        return None
    if len(owner) == 1 and owner[0] not in fields:
        return UsageError(
            f"--{key}: no {kind.noun} {shown(owner[0])} in this run", hint=_owner_hint(kind, parts, picks, methods)
        )
    elsewhere = owners(option, cards) if not owner else []
    found = [nearest(word, sorted(fields)) for word in (*owner[::-1], option)]
    near = [f"--{kind.name}.{name}" for name in next(filter(None, found), [])]
    hint = f"did you mean {' or '.join(elsewhere or near)}?" if elsewhere or near else None
    if hint is None and fields:
        hint = f"available: {', '.join(f'--{kind.name}.{name}' for name in sorted(fields))}"
    return UsageError(f"--{key}: no {kind.noun} of this run has that option", hint=hint)


def _owner_hint(kind: Kind, parts: list[str], picks: Sequence[Pick], methods: Registry) -> str:
    """What to do about the option of a method that is not in the run: add it, or spell it like another one."""
    owner, option = parts
    installed = {name for _, method in methods.entries(kind.name) for name in (method.name, *method.aliases)}
    here = sorted({name for pick in picks for name in pick.called})
    if owner not in installed and (near := nearest(owner, here) or nearest(owner, sorted(installed))):
        return f"did you mean {' or '.join(f'--{kind.name}.{name}.{option}' for name in near)}?"
    return f"add --{kind.name} {owner}" if owner in installed else f"`alignzoo ls {kind.name}` lists the names"


def _misplaced_weight(kind: Kind, key: str, owned: bool, picks: Sequence[Pick]) -> UsageError | None:
    """A weight of a method that is the only one, or without the method's name."""
    if len(picks) == 1:
        return UsageError(
            f"--{key} has no effect here: a weight is relative to the other terms of a mixture, but there is only one "
            f"{kind.noun}",
            hint=f"add another --{kind.name}, or leave it out",
        )
    if owned:
        return None
    names = [f"--{kind.name}.{pick.card.name}.{WEIGHT}" for pick in picks]
    return UsageError(f"--{key}: name the method it belongs to", hint=" or ".join(names))
