"""Every method that alignzoo brings keeps the contract, and so do unusual but honest ones."""

from __future__ import annotations

from collections.abc import Callable

from honest import HONEST

from alignzoo.plugin import KINDS, Card, registry
from alignzoo.testing import contract

OWN = [method for plugin, method in registry().entries() if plugin.distribution == "alignzoo"]
CARDS = [method for method in OWN if isinstance(method, Card)]


@contract(*CARDS)
def test_built_in_methods_keep_the_contract(check: Callable[[], None]) -> None:
    check()


@contract(*HONEST)
def test_honest_methods_keep_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_built_in_methods_of_every_kind() -> None:
    assert {card.kind for card in CARDS} == set(KINDS)
