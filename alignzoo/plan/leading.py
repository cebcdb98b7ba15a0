"""The first term of a mixture where a composition names what goes around its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignzoo.contract.card import Composition
from alignzoo.contract.kinds import KINDS, Kind
from alignzoo.errors import IncompatibleError
from alignzoo.plan.picks import Pick, Selection


def put_wrapped_first(kind: Kind, found: Selection, brought: Mapping[str, Sequence[Pick]]) -> None:
    """Put first the method of a composition that also names wrappers or an aggregation: they apply to the first alone.

    Refused where two compositions do so, and where wrappers of their own were named beside another first method.

    Args:
        found: what was named; its order, notes and problems are changed.
        brought: by kind, the parts of compositions of other kinds.
    """
    picks = found.picks[kind.name]
    around = [name for name, other in KINDS.items() if other.around_first]
    inner = [pick.by for name in around for pick in brought[name] if pick.by and pick.by.kind == kind.name]
    leaders = list({by.name: by for by in inner}.values())
    if len(leaders) > 1:
        found.problems.append(_two_leaders(kind, leaders))
    if len(leaders) != 1:
        return
    (by,) = leaders
    own = [pick for pick in picks if pick.by is by]
    if not own or picks[0].by is by:
        return
    others = [pick for pick in picks if pick.by is not by]
    named = [f"--{name} {pick.card.name}" for name in around for pick in found.picks[name]]
    if named:
        found.problems.append(_named_beside(kind, by, own[0], others[0], named[0]))
        return
    found.notes.append(f"{own[0].card.name} goes first: what {by.name} names with it applies to the first {kind.noun}")
    picks[:] = [*own, *others]


def _named_beside(kind: Kind, by: Composition, own: Pick, first: Pick, named: str) -> IncompatibleError:
    """The error about something around the first method, which a composition that comes later would displace."""
    return IncompatibleError(
        f"--{kind.name} {by.name} is short for {by.flags()}, and {named} is named beside {first.card.name}, the first "
        f"{kind.noun}: both go around the first {kind.noun}, and there is one",
        hint=f"put --{kind.name} {by.name} before --{kind.name} {first.card.name}, so that both go around "
        f"{own.card.name}; or leave out {named}",
    )


def _two_leaders(kind: Kind, compositions: Sequence[Composition]) -> IncompatibleError:
    """The error about compositions that each name what goes around their own method."""
    names = " and ".join(f"--{kind.name} {by.name} ({by.flags()})" for by in compositions)
    return IncompatibleError(
        f"{names} each name what goes around their {kind.noun}, and that goes around the first {kind.noun} alone",
        hint=f"keep one of them, and name only the {kind.noun} of the other",
    )
