"""Search ranges: from bounds and defaults, or as a card states them."""

import subprocess
import sys
from typing import Literal

import pytest
from pydantic import Field

from alignzoo.contract.card import Card, Options
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plugin.registry import list_methods
from alignzoo.sweeps.search_ranges import SEARCHED, Range, Scale, Words, option_range, space


class Some(Options):
    beta: float = Field(0.1, gt=0, description="positive")
    b1: float = Field(3.0, gt=1, description="positive, above 1")
    q: float = Field(0.7, gt=0, le=1, description="a share")
    share: float = Field(0.01, gt=0, le=1, description="a small share")
    smoothing: float = Field(0.0, ge=0, lt=0.5, description="a share, off")
    off: float = Field(0.0, ge=0, description="off")
    count: int = Field(6, ge=3, description="whole")
    many: int | None = Field(None, ge=1, description="unset")
    switch: bool = Field(True, description="yes or no")
    word: Literal["a", "b"] = Field("a", description="words")
    where: str = Field("x", description="text", json_schema_extra={"path": True})
    decay: float = Field(0.99, ge=0, lt=1, description="stated", json_schema_extra={"search": [0.9, 0.999]})
    scale: float = Field(1.0, description="stated over decades", json_schema_extra={"search": [0.01, 1.0]})
    text: str = Field("x", description="stated words", json_schema_extra={"search": ["x", "y"]})
    left: float = Field(1.0, gt=0, description="left out", json_schema_extra={"search": []})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("beta", Scale(0.01, 1.0, log=True)),
        ("b1", Scale(1.04, 30.0, log=True)),
        ("q", Scale(0.02, 1.0)),
        ("share", Scale(0.001, 0.1, log=True)),
        ("smoothing", Scale(0.0, 0.49)),
        ("off", None),
        ("count", Scale(3, 24, integer=True)),
        ("many", None),
        ("switch", Words((False, True))),
        ("word", Words(("a", "b"))),
        ("where", None),
        ("decay", Scale(0.9, 0.999)),
        ("scale", Scale(0.01, 1.0, log=True)),
        ("text", Words(("x", "y"))),
        ("left", None),
    ],
)
def test_a_range_follows_from_bounds_and_default_or_is_stated(name: str, expected: Range | None) -> None:
    found = option_range(Some.model_fields[name])
    if isinstance(expected, Scale):
        assert isinstance(found, Scale)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert (found.log, found.integer) == (expected.log, expected.integer)
    else:
        assert found == expected


CARDS = [card for card in list_methods() if isinstance(card, Card) and card.kind in SEARCHED and not card.experimental]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{card.kind}-{card.name}")
def test_the_range_of_every_card_contains_its_default_and_valid_ends(card: Card) -> None:
    for name, field in card.options.model_fields.items():
        one = option_range(field)
        if isinstance(one, Scale):
            assert one.low <= field.get_default() <= one.high, name
            assert one.low > 0 or not one.log, name
        elif one is not None:
            assert field.get_default() in one.values, name


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{card.kind}-{card.name}")
def test_options_at_all_ends_together_are_valid(card: Card) -> None:
    if any(field.is_required() for field in card.options.model_fields.values()):
        return
    options, found = card.options(), {}
    from alignzoo.sweeps.search_ranges import allowed

    for name, field in card.options.model_fields.items():
        one = allowed(option_range(field), name, options)
        if one is not None:
            found[name] = (one.low, one.high) if isinstance(one, Scale) else (one.values[0], one.values[-1])
    for end in (0, 1):
        card.options.model_validate({name: ends[end] for name, ends in found.items()})


def test_the_space_of_a_plan_names_options_as_its_recipe_does() -> None:
    plan = require(resolve([Layer("flag", {"loss": "cdpo", "geometry": "sam", "geometry.radius": "gap"})]))
    found = space(plan)
    assert {"loss.beta", "robust.cdpo.epsilon", "geometry.gap_share", "geometry.interval"} <= set(found)
    assert "geometry.rho" not in found, "it has no effect with radius gap"


def test_ranges_need_no_torch() -> None:
    code = "import sys, alignzoo.sweeps.search_ranges; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
