"""Every method that alignzoo brings keeps the contract, and so do unusual but honest ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from honest import HONEST

from alignzoo.plugin import KINDS, Card, registry
from alignzoo.plugin.discover import HEAVY
from alignzoo.testing import common, contract
from alignzoo.testing.modules import environment, sources

WITHOUT_TORCH = "card-without-torch"
OWN = [method for plugin, method in registry().entries() if plugin.distribution == "alignzoo"]
CARDS = [method for method in OWN if isinstance(method, Card)]


CHECKS = [param for param in contract(*CARDS).mark.args[1] if param.values[0].rule != WITHOUT_TORCH]


@pytest.mark.parametrize("check", CHECKS)
def test_built_in_methods_keep_the_contract(check: Callable[[], None]) -> None:
    check()


def test_the_cards_of_built_in_methods_are_read_without_torch() -> None:
    """The rule that is left out above: one fresh interpreter reads one card after another, instead of one for each."""
    assert not any(WITHOUT_TORCH in card.expected_failures for card in CARDS)
    modules = sources([plugin.module for plugin in registry().plugins] + [card.options.__module__ for card in CARDS])
    given = json.dumps({"sources": modules, "heavy": HEAVY})
    command = [sys.executable, "-c", common._FRESH, given]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert ended.stdout == "null\n", ended.stdout + ended.stderr


@contract(*HONEST)
def test_honest_methods_keep_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_built_in_methods_of_every_kind() -> None:
    assert {card.kind for card in CARDS} == set(KINDS)
