"""Numbers are numbers: neither yes nor no, and finite, wherever they come from."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import Field, ValidationError

import alignzoo
from alignzoo.contract.card import Options
from alignzoo.errors import UsageError
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", True, False])
@pytest.mark.parametrize("key", ["lr", "epochs", "max-grad-norm", "loss.beta"])
def test_settings_and_options_refuse_what_is_no_number(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{key}: .*number"):
        require(resolve([Layer("python", {key: value})]))


@pytest.mark.parametrize("value", [True, 2**63, "1" + "0" * 30, 1e30])
def test_integers_are_whole_and_have_64_bits(value: Any) -> None:
    with pytest.raises(UsageError, match="--seed: "):
        require(resolve([Layer("python", {"seed": value})]))
    assert require(resolve([Layer("python", {"seed": 2**63 - 1})])).settings.seed == 2**63 - 1


def test_a_method_loaded_in_python_is_held_to_the_same() -> None:
    with pytest.raises(UsageError, match="finite"):
        alignzoo.load_method("loss", "dpo", beta=math.nan)


class Bounds(Options):
    most: float = Field(math.inf, allow_inf_nan=True, description="may be infinite")
    radii: tuple[float, ...] = Field((0.1,), description="several")
    switch: bool = Field(False, description="on or off")
    either: int | bool = Field(1, description="a number or a switch")


def test_a_field_may_ask_for_infinity_and_a_switch_stays_one() -> None:
    assert Bounds(most=math.inf).most == math.inf
    assert Bounds(switch=True).switch is True
    assert Bounds(either=True).either is True


@pytest.mark.parametrize("radii", [[True], [math.nan], ["inf"]])
def test_numbers_of_a_list_are_numbers(radii: list[Any]) -> None:
    with pytest.raises(ValidationError):
        Bounds(radii=radii)  # type: ignore[arg-type]
