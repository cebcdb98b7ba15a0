"""What is suggested for a name that does not exist."""

from __future__ import annotations

import pytest

from alignzoo.base.suggest import MIGRATION, OTHER_METHODS, nearest, suggest
from alignzoo.plan.settings import Settings
from alignzoo.plugin.registry import registry

FLAGS = [f"--{flag}" for flag in [*Settings.by_flag(), "loss", "loss.beta", "resume"]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("--output-dir", "--out"),
        ("--output_dir", "--out"),
        ("--report-to", "--track"),
        ("--learning-rate", "--lr"),
        ("--LEARNING_RATE", "--lr"),
        ("--Lr", "--lr"),
        ("--bf16", "--precision bf16"),
        ("--beta", "--loss.beta"),
        ("--lora-r", "--lora.r"),
        ("--max-stpes", "--max-steps"),
    ],
)
def test_flags(name: str, expected: str) -> None:
    assert nearest(name, FLAGS)[0] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shapo", ["shapo-token", "shapo-reward"]),
        ("Shapo_Token", ["shapo-token"]),
        ("shapo-tokn", ["shapo-token"]),
        ("DPO", ["dpo"]),
        ("sigmoid", ["dpo"]),
        ("dpi", ["dpo"]),
        ("orpo", []),
        ("kto", []),
        ("zzz", []),
    ],
)
def test_methods(name: str, expected: list[str]) -> None:
    known = ["dpo", "drdpo", "drdpo", "ipo", "shapo-token", "shapo-reward", "shapo-token"]
    assert nearest(name, known) == expected


def test_a_name_is_suggested_once() -> None:
    assert suggest("drpo", ["dpo", "drdpo", "drdpo"]) == "did you mean drdpo or dpo?"
    assert suggest("zzz", ["dpo"]) is None


def test_an_unknown_loss_says_what_there_is_and_how_to_write_one() -> None:
    from alignzoo.errors import UsageError

    with pytest.raises(UsageError) as error:
        registry().find("loss", "entropy")
    hint = str(error.value.hint)
    assert hint.startswith("`alignzoo ls loss` lists all "), "too many to name"
    assert "alignzoo new loss" in hint
    with pytest.raises(UsageError) as error:
        registry().find("selector", "entropy")
    assert "safedpo" in str(error.value.hint)


def test_words_of_other_trainers_are_in_the_form_that_is_looked_up() -> None:
    assert all(word == word.lower().replace("_", "-") for word in (*MIGRATION, *OTHER_METHODS))
