"""The reward of a plan: which one is taken where none is named, what it asks for, and how it is read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from alignzoo.contract.card import Card, Need, Options
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import plan_to_dict, read_plan, write_plan
from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import require, resolve
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import Registry, registry

OWN = {"model": "sandbox", "data": "sandbox"}
SOFT = {**OWN, "robust": ["soft-label"]}


def plan(values: dict[str, Any]) -> Plan:
    return require(resolve([Layer("flag", values)]))


def reward_of(values: dict[str, Any]) -> str | None:
    return next((reward.card.name for reward in plan(values).of("reward")), None)


def test_the_default_follows_what_is_read() -> None:
    facts = {"target": "a:B", "summary": "s", "formula": "f"}
    reader = Card(kind="loss", name="reader", needs=frozenset({"scores"}), **facts)  # type: ignore[arg-type]
    known = Registry([*registry().plugins, Plugin("theirs", "1", "theirs", "theirs", [reader])])
    assert reward_of(OWN) is None
    assert reward_of(SOFT) == "probe"
    taken = require(resolve([Layer("flag", {**OWN, "loss": "reader"})], methods=known))
    assert (taken.one("reward").card.name, taken.sentence()) == ("column", "--loss reader --geometry plain")
    assert "scores" in taken.needs  # of the data
    other = require(resolve([Layer("flag", {**OWN, "loss": "reader", "reward": "probe"})], methods=known))
    assert other.sentence() == "--loss reader --geometry plain --reward probe"
    assert {"scores", "probe"} & other.needs == {"probe"}


def test_the_sentence_names_a_reward_that_is_not_the_default() -> None:
    assert plan(SOFT).sentence() == "--loss dpo --robust soft-label --geometry plain"
    assert plan({**SOFT, "reward": "probe"}).sentence() == plan(SOFT).sentence()
    named = plan({**SOFT, "reward": "hf", "reward.model": "org/m"})
    assert named.sentence() == "--loss dpo --robust soft-label --geometry plain --reward hf"


@pytest.mark.parametrize(
    "values",
    [
        SOFT,
        {**SOFT, "reward": "column", "reward.sign": -1},
        {**SOFT, "reward": "alignzoo:hf", "reward.model": "org/m", "reward.hf.batch_size": 3},
        {**OWN, "geometry": "shapo-reward", "geometry.preset": "official", "robust.k": 5},
    ],
)
def test_a_plan_with_a_reward_is_read_back(values: dict[str, Any], tmp_path: Path) -> None:
    first = plan(values)
    write_plan(first, tmp_path)
    again = replace(read_plan(tmp_path), notes=first.notes)  # parts are read back, not the composition's name
    assert plan_to_dict(again) == plan_to_dict(first)


def test_a_recipe_names_a_reward_with_its_options() -> None:
    found = plan(flatten({**SOFT, "reward": {"name": "hf", "model": "org/m", "sign": -1}}, "recipe"))
    assert found.one("reward").options.model_dump() == {
        "model": "org/m",
        "sign": -1,
        "max_length": None,
        "batch_size": 16,
    }


def test_a_local_reward_model_is_kept_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    write_plan(plan({**SOFT, "reward": "hf", "reward.model": "mine"}), tmp_path)
    reward = read_plan(tmp_path).one("reward")
    assert reward.options.model == str(tmp_path / "mine")  # type: ignore[attr-defined]


def test_options_of_another_reward_are_refused() -> None:
    def refusal(values: dict[str, Any]) -> AlignzooError:
        problems = resolve([Layer("flag", values)])
        assert isinstance(problems, list)
        return problems[0]

    assert "--reward.hf.sign: no reward 'hf' in this run" in refusal({**SOFT, "reward.hf.sign": -1}).message
    assert "reward 'probe' has no option 'sign'" in refusal({**SOFT, "reward.sign": -1}).message
    assert "--reward.sign: no reward of this run has that option" in refusal({**OWN, "reward.sign": -1}).message
    assert isinstance(refusal({**OWN, "reward": "probe"}), UsageError)


def test_an_option_of_another_kind_is_found_where_it_is() -> None:
    problems = resolve([Layer("flag", {**OWN, "geometry": "shapo-token", "reward.rho": 1})])
    assert isinstance(problems, list)
    assert "--reward.rho: no reward of this run has that option" in problems[0].message
    assert problems[0].hint == "did you mean --geometry.rho?"


class Judged(Options):
    """Reads scores by an option."""

    judged: bool = Field(True, description="reads scores")

    def needs(self) -> frozenset[Need]:
        return frozenset({"reward"}) if self.judged else frozenset()


def test_needs_of_options_count() -> None:
    facts = {"target": "a:B", "summary": "s", "formula": "f", "options": Judged}
    judging = Card(kind="robust", name="judging", **facts)  # type: ignore[arg-type]
    known = Registry([*registry().plugins, Plugin("theirs", "1", "theirs", "theirs", [judging])])
    plan = require(resolve([Layer("flag", {**OWN, "robust": ["judging"]})], methods=known))
    assert plan.of("reward")
    quiet = {**OWN, "robust": ["judging"], "robust.judged": False}
    assert require(resolve([Layer("flag", quiet)], methods=known)).of("reward") == ()
    problems = resolve([Layer("flag", {**OWN, "reward": "probe"})], methods=known)
    assert isinstance(problems, list)
    assert "--robust judging" in str(problems[0].hint)


def test_a_wrapper_around_soft_labels_that_looks_at_the_opposite_label_would_do_nothing() -> None:
    facts = {"target": "a:B", "summary": "s", "formula": "f"}
    smooth = Card(kind="robust", name="smooth", needs=frozenset({"swap"}), **facts)  # type: ignore[arg-type]
    known = Registry([*registry().plugins, Plugin("theirs", "1", "theirs", "theirs", [smooth])])

    def resolved(**values: Any) -> Any:
        return resolve([Layer("flag", {**OWN, **values})], methods=known)

    assert isinstance(resolved(robust=["smooth"]), Plan)
    assert isinstance(resolved(robust=["smooth", "soft-label"]), Plan)
    for values in ({"robust": ["soft-label", "smooth"]}, {"robust": ["smooth"], "geometry": "shapo-reward"}):
        [problem] = resolved(**values)
        assert problem.exit_code == 3
        assert "robust 'smooth' has no effect around" in problem.message
