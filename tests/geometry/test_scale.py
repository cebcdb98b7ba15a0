"""Controllers on large models: refusals of the table are those of the resolver, "exact" has a rule of the contract."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alignzoo.errors import IncompatibleError
from alignzoo.plan.plan import Plan
from alignzoo.testing.checks import RULES

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

from scale_blocks import LAUNCHES, REFUSED, cells, controllers, resolved

RULE_OF = {"DDP": "ranks", "FSDP2": "sharded", "LoRA": "lora"}
"""The rule that holds an "exact" of a column; those of companions are held by the rules of their own tests."""


@pytest.mark.parametrize("card", controllers(), ids=lambda card: card.name)
def test_every_cell_is_true(card) -> None:  # type: ignore[no-untyped-def]
    row, rules = cells(card), {rule.name: rule for rule in RULES["geometry"]}
    words = {"lora.r": 8, "quantize": "4bit"}
    found = {name: resolved(card, launch=launch) for name, launch in LAUNCHES.items()}
    found |= {"4-bit base": resolved(card, **words), "LoRA": resolved(card, **{"lora.r": 8})}
    for column, result in found.items():
        if row[column] == REFUSED:
            assert isinstance(result, list)
            assert any(isinstance(problem, IncompatibleError) and problem.hint for problem in result), column
            continue
        assert isinstance(result, Plan), column
        if column in RULE_OF and not card.companion:
            rule = rules[RULE_OF[column]]
            assert rule.applies(card), f"nothing holds {column}"
            assert rule.name not in card.expected_failures
    assert isinstance(resolved(card, launch="fsdp", **words), list), "quantised weights are not sharded"
    assert ("auto" in row["bf16"]) == bool(card.needs_fp32)


def test_a_launch_with_deepspeed_is_sent_to_fsdp2() -> None:
    problems = resolved(controllers()[0], launch="deepspeed")
    assert isinstance(problems, list)
    assert "FSDP2" in str(problems[0].hint)
