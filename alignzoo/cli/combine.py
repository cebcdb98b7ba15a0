"""What a method runs with: a command line that uses it, and the methods that cannot be combined with it."""

from __future__ import annotations

import functools

from alignzoo.cli.describe import option_facts
from alignzoo.contract.card import Card, Composition
from alignzoo.contract.judge import JudgeCard
from alignzoo.contract.kinds import KINDS
from alignzoo.plan.conflicts import GUIDES
from alignzoo.plan.refusals import Pairs
from alignzoo.plugin.build import readers
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import Registry, registry


def example(method: Card | Composition) -> str:
    """A command line that uses the method, with its first numeric option stated at its default."""
    words = f"alignzoo run {_beside(method)}--{method.kind} {method.name}"
    if isinstance(method, JudgeCard):
        command = "judge pairs RUN OTHER" if method.measures == "preference" else "eval RUN --suite NAMES"
        words = f"alignzoo {command} --judge {method.name}"
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
    pairs = _pairs()
    if method.kind == "loss" or isinstance(method, Composition) or not pairs.alone(pairs.method_of(method)):
        return ""
    of_it = pairs.of(pairs.method_of(method))
    refused_losses = {refusal.first.card.name for refusal in of_it if refusal.first.card.kind == "loss"}
    loss = next((card.name for card in own_cards("loss") if card.name not in refused_losses), None)
    return "" if loss is None else f"--loss {loss} "


def own_cards(kind: str) -> list[Card]:
    """The methods of this distribution that are of one kind, without compositions."""
    return [m for p, m in registry().entries(kind) if isinstance(m, Card) and p.distribution == OWN_DISTRIBUTION]


def refused(card: Card) -> dict[str, list[str]]:
    """The methods of this distribution that cannot be combined with one, by kind, in whatever order.

    Two methods of a kind of which a run has one are left out, and what is missing for either of them alone.
    """
    pairs = _pairs()
    method = pairs.method_of(card)
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for refusal in pairs.of(method):
        other = refusal.first if refusal.second is method else refusal.second
        beside = other.card.kind != card.kind or KINDS[card.kind].multiplicity == "stack"
        if refusal.either_order and beside and other.distribution == OWN_DISTRIBUTION:
            found[other.card.kind].append(other.card.name)
    return {kind: list(dict.fromkeys(names)) for kind, names in found.items() if names}


def _pairs() -> Pairs:
    """The pairs of the methods there are; made once, as long as those do not change."""
    return _pairs_of(registry())


@functools.lru_cache(maxsize=1)
def _pairs_of(methods: Registry) -> Pairs:
    return Pairs(methods)
