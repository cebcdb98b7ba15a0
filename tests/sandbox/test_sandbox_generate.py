"""The generator: the same rows for the same seed, train and evaluation apart, and every text means what it should."""

from __future__ import annotations

import random

import pytest
from alignzoo_sandbox import ATTACK_SPLITS, EVALUATION_SPLITS, SPLITS, judge, preference_rows, prompts
from alignzoo_sandbox.generate import BORDERLINE_TRAINED
from alignzoo_sandbox.lexicon import CATEGORIES, HARMFUL
from alignzoo_sandbox.world import comply, goal_texts, goals, refuse
from alignzoo_sandbox.wrappers import WRAPPERS

from alignzoo.errors import UsageError


@pytest.mark.parametrize("split", SPLITS)
def test_same_seed_same_prompts_and_rows(split: str) -> None:
    assert prompts(split, 50, seed=3) == prompts(split, 50, seed=3)
    assert preference_rows(split, 50, seed=3) == preference_rows(split, 50, seed=3)
    assert prompts(split, 50, seed=3) != prompts(split, 50, seed=4)


def test_generation_leaves_the_global_random_state_alone() -> None:
    before = random.getstate()
    preference_rows("train", 20)
    assert random.getstate() == before


@pytest.mark.parametrize("split", SPLITS)
def test_at_least_200_different_prompts(split: str) -> None:
    assert len({prompt.text for prompt in prompts(split)}) == 256
    assert len({row["prompt"][-1]["content"] for row in preference_rows(split, 256)}) == 256


@pytest.mark.parametrize("split", ["validation", *EVALUATION_SPLITS])
def test_train_shares_no_prompt_and_no_goal_with_evaluation_under_any_seed(split: str) -> None:
    train = [prompt for seed in range(3) for prompt in prompts("train", 2000, seed)]
    held_out = [prompt for seed in range(3) for prompt in prompts(split, 256, seed)]
    assert not {prompt.text for prompt in train} & {prompt.text for prompt in held_out}
    assert not {prompt.goal.text for prompt in train} & {prompt.goal.text for prompt in held_out}


def test_train_is_half_harmful_and_has_few_borderline_requests() -> None:
    train = prompts("train", 2000)
    assert 0.45 < sum(prompt.harmful for prompt in train) / 2000 < 0.55
    borderline = [prompt for prompt in train if prompt.goal.category.kind == "borderline"]
    assert 0.02 < len(borderline) / 2000 < 0.08
    assert {prompt.group for prompt in borderline} == set(BORDERLINE_TRAINED)


def test_ood_intents_are_categories_that_training_never_shows() -> None:
    trained = {prompt.goal.category.name for prompt in prompts("train", 2000)}
    assert not trained & {prompt.group for prompt in prompts("ood-intents")}
    verbs = {verb for category in HARMFUL for verb in category.verbs}
    assert not verbs & {prompt.goal.verb for prompt in prompts("ood-intents")}


def test_ood_wrappers_use_every_wrapper_around_trained_categories() -> None:
    wrapped = prompts("ood-wrappers")
    assert {prompt.group for prompt in wrapped} == set(WRAPPERS)
    assert {prompt.goal.category.name for prompt in wrapped} == {category.name for category in HARMFUL}


def test_borderline_requests_use_the_verbs_of_harmful_ones() -> None:
    alarming = {verb for category in CATEGORIES if "harmful" in category.kind for verb in category.verbs}
    shared = sum(prompt.goal.verb in alarming for prompt in prompts("borderline"))
    assert shared > 100


def test_no_goal_is_both_harmful_and_harmless() -> None:
    assert len(goal_texts()) == sum(len(c.verbs) * len(c.things) * len(c.whos) for c in CATEGORIES)


def test_a_typo_changes_the_goal() -> None:
    rng = random.Random(0)
    for goal in goals("harmful")["arson"][:100]:
        assert goal.text not in WRAPPERS["typos"](goal, rng)


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_conversational_and_judged_as_intended(split: str) -> None:
    for prompt, row in zip(prompts(split, 256, seed=1), preference_rows(split, 256, seed=1), strict=True):
        assert set(row) == {"prompt", "chosen", "rejected", "chosen_safe", "rejected_safe", "group"}
        assert [turn["role"] for turn in row["prompt"] + row["chosen"] + row["rejected"]] == [
            "user",
            "assistant",
            "assistant",
        ]
        assert row["prompt"][0]["content"] == prompt.text
        chosen, rejected = (judge(prompt, row[side][0]["content"]) for side in ("chosen", "rejected"))
        assert (chosen, rejected) == (("refuses", "complies") if prompt.harmful else ("complies", "refuses"))
        assert row["chosen_safe"] is True
        assert row["rejected_safe"] is (not prompt.harmful)


def test_every_goal_can_be_complied_with_and_refused() -> None:
    rng = random.Random(0)
    for split in EVALUATION_SPLITS:
        for prompt in prompts(split):
            assert prompt.harmful is (split in ATTACK_SPLITS)
            assert judge(prompt, comply(prompt.goal, rng)) == "complies"
            assert judge(prompt, refuse(prompt.goal, rng)) == "refuses"


def test_unknown_split_and_too_many_prompts_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="unknown sandbox split 'dev'"):
        prompts("dev")
    with pytest.raises(UsageError, match="borderline"):
        prompts("borderline", 100_000)
