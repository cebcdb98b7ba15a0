"""What a method runs with: a command line that uses it, and the methods that cannot be combined with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from alignzoo.cli.describe import option_facts
from alignzoo.contract.card import Card, Composition
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import IncompatibleError
from alignzoo.plan.conflicts import GUIDES
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo.plugin.build import readers
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry

Picked = Mapping[str, Sequence[str]]
"""Names of methods by kind."""


def example(method: Card | Composition) -> str:
    """A command line that uses the method, with its first numeric option stated at its default."""
    words = f"alignzoo run {_beside(method)}--{method.kind} {method.name}"
    if isinstance(method, Composition):
        return words
    required = [name for name, info in method.options.model_fields.items() if info.is_required()]
    words += "".join(f" --{method.kind}.{name} {name.upper()}" for name in required)
    words += "".join(f" --{guide} sandbox" for guide in GUIDES if guide in method.needs)
    numeric = [facts for facts in option_facts(method) if facts.type in ("INT", "NUMBER") and facts.default is not None]
    return words + (f" --{method.kind}.{numeric[0].name} {numeric[0].default_text()}" if numeric else "")


def _beside(method: Card | Composition) -> str:
    """The flag of another method that it needs: one that reads what it serves, or another loss than the default."""
    served = readers(KINDS[method.kind], registry())[:1]
    if served:
        return f"--{served[0].kind} {served[0].name} "
    picked = {method.kind: (method.name,)}
    if method.kind == "loss" or not _refusals(picked):
        return ""
    losses = (card.name for card in own_cards("loss") if not _refusals({"loss": (card.name,), **picked}))
    loss = next(losses, None)
    return "" if loss is None else f"--loss {loss} "


def own_cards(kind: str) -> list[Card]:
    """The methods of this distribution that are of one kind, without compositions."""
    return [m for p, m in registry().entries(kind) if isinstance(m, Card) and p.distribution == OWN_DISTRIBUTION]


def refused(card: Card) -> dict[str, list[str]]:
    """The methods of this distribution that cannot be combined with one, by kind, in whatever order.

    Two methods of a kind of which a run has one are left out, and what is missing for either of them alone.
    """
    found = {kind: [other.name for other in own_cards(kind) if _is_refused(card, other)] for kind in KINDS}
    return {kind: names for kind, names in found.items() if names}


def _is_refused(card: Card, other: Card) -> bool:
    if card.name == other.name and card.kind == other.kind:
        return False
    if card.kind == other.kind and KINDS[card.kind].multiplicity != "stack":
        return False
    return all(_refused_together(picked, card, other) for picked in _orders(card, other))


def _refused_together(picked: Picked, card: Card, other: Card) -> bool:
    """Whether there is a reason that neither of them has alone."""
    problems = _refusals(picked)
    return bool(problems) and not problems <= _alone(card) | _alone(other)


def _orders(card: Card, other: Card) -> Iterator[Picked]:
    if card.kind != other.kind:
        yield {card.kind: (card.name,), other.kind: (other.name,)}
        return
    for names in ((card.name, other.name), (other.name, card.name)):
        yield {card.kind: names}


def _alone(card: Card) -> frozenset[str]:
    return _refusals({card.kind: (card.name,)})


def _refusals(picked: Picked) -> frozenset[str]:
    """Why these methods cannot be combined; options that are missing are no reason."""
    resolved = resolve([Layer("catalogue", {kind: list(names) for kind, names in picked.items()})])
    if isinstance(resolved, Plan):
        return frozenset()
    return frozenset(problem.message for problem in resolved if isinstance(problem, IncompatibleError))
