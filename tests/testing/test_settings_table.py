"""A step is the same wherever it is taken: one table of settings, and every built-in controller in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Literal

import pytest

from alignzoo import list_methods
from alignzoo.plugin import Card, Options
from alignzoo.testing.compare import relative_error
from alignzoo.testing.geometry_bench import in_a_coupled_step
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.steps import PAIRS, Taken, trajectory
from alignzoo.testing.subject import Subject
from alignzoo.testing.sweep import telling_steps

Ranks = Literal["one process", "DDP", "FSDP2"]


@dataclass(frozen=True)
class Setting:
    """Where a step of eight pairs is taken.

    Attributes:
        weights: what is trained.
        ranks: the processes; two of them under DDP and FSDP2.
        cut: micro-batches of the whole step times pairs in each.
    """

    weights: Literal["full", "LoRA"]
    ranks: Ranks
    cut: Literal["1x8", "4x2"]

    def __str__(self) -> str:
        return f"{self.weights}, {self.ranks}, {self.cut}"

    @property
    def size(self) -> int:
        """Pairs in a rank's micro-batch."""
        return PAIRS if self.cut == "1x8" else 2


SETTINGS = [
    Setting(weights, ranks, cut)
    for weights, ranks, cut in product(("full", "LoRA"), ("one process", "DDP", "FSDP2"), ("1x8", "4x2"))
]
CONTROLLERS = {card.name: card for card in list_methods("geometry") if isinstance(card, Card)}
TOLERANCE = 1e-8


def take_in(settings: Sequence[Setting], card: Card, options: Options, steps: Sequence[int]) -> list[list[Taken]]:
    """The steps in several settings, on this process's ranks."""
    return [
        trajectory(
            in_a_coupled_step,
            card,
            options,
            steps,
            setting.size,
            adapter=setting.weights == "LoRA",
            sharded=setting.ranks == "FSDP2",
        )
        for setting in settings
    ]


@lru_cache(maxsize=1)  # the tests of a controller follow one another
def everywhere(name: str) -> dict[Setting, list[list[Taken]]]:
    """The first telling steps of a controller in all settings: one result per rank."""
    card = CONTROLLERS[name]
    subject = Subject(card)
    options, steps = subject.default.options, telling_steps(subject, subject.default)
    alone = [setting for setting in SETTINGS if setting.ranks == "one process"]
    shared = [setting for setting in SETTINGS if setting.ranks != "one process"]
    found = {setting: [taken] for setting, taken in zip(alone, take_in(alone, card, options, steps), strict=True)}
    modules = [card.options.__module__, card.target.partition(":")[0], take_in.__module__]
    both: Any = on_two_ranks(take_in, shared, card, options, steps, modules=modules)
    return found | {setting: [rank[i] for rank in both] for i, setting in enumerate(shared)}


USUAL = ("plain", "sam", "shapo-token")
"""Those in every test run; the contract's rules of ranks, shards and accumulation are held for all of them there."""


def _named(name: str) -> Any:
    return pytest.param(name, marks=[] if name in USUAL else [pytest.mark.slow])


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", map(_named, CONTROLLERS))
def test_every_controller_takes_the_same_step_in_every_setting(name: str, setting: Setting) -> None:
    found = everywhere(name)
    expected = found[Setting(setting.weights, "one process", "1x8")]
    for rank in found[setting]:
        for one, other in zip(rank, expected[0], strict=True):
            assert relative_error(one.value, other.value) <= TOLERANCE
            assert relative_error(one.weights, other.weights) <= TOLERANCE
            assert relative_error(one.gradient, other.gradient) <= TOLERANCE
            assert float(other.gradient.abs().max()) > 0


def test_every_controller_says_that_it_works_on_sharded_weights() -> None:
    whole = [card.name for card in CONTROLLERS.values() if not card.sharded]
    assert whole == [card.name for card in CONTROLLERS.values() if card.moves_reference], "its copy is whole"
