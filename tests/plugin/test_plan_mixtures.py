"""Mixtures of losses: words, weights, what goes around what, and the way into a plan file and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignzoo.contract.card import Card, Composition
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import plan_to_dict, read_plan, write_plan
from alignzoo.plan.recipe import Layer, flatten, read_recipe
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.started import plain_values
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import Registry, registry

OWN = {"model": "sandbox", "data": "sandbox"}
FACTS: dict[str, Any] = {"target": "nowhere:Method", "summary": "s", "formula": "f"}
MIXED = {**OWN, "loss": ["dpo", "ipo"], "loss.ipo.weight": "0.1", "loss.dpo.beta": 0.2}


def known() -> Registry:
    """With a loss on responses, one without an opposite label, and wrappers around pairs alone."""
    methods = [
        Card(kind="loss", name="unpaired", reads="responses", **FACTS),
        Card(kind="loss", name="one-sided", swaps=False, **FACTS),
        Card(kind="robust", name="of-pairs", around=frozenset({"pairs"}), **FACTS),
        Composition(name="safe", summary="s", parts={"loss": ("one-sided",), "robust": ("of-pairs",)}),
        Card(kind="robust", name="flips", needs=frozenset({"swap"}), **FACTS),
    ]
    return Registry([*registry().plugins, Plugin("theirs", "1", "theirs", "theirs", methods)])


def plan(*layers: dict[str, Any]) -> Plan:
    return require(resolve([Layer(f"layer {i}", values) for i, values in enumerate(layers)], methods=known()))


def refusal(*layers: dict[str, Any]) -> AlignzooError:
    found = resolve([Layer("flag", values) for values in layers], methods=known())
    assert isinstance(found, list), found.sentence()
    return found[0]


def test_a_mixture_has_weights_and_says_what_it_minimises() -> None:
    found = plan({**MIXED, "robust": ["drdpo"]})
    assert [(m.card.name, m.weight) for m in found.of("loss")] == [("dpo", 1.0), ("ipo", 0.1)]
    assert found.one("loss").options.model_dump() == {"beta": 0.2}
    assert found.sentence() == "--loss dpo --loss ipo --loss.ipo.weight 0.1 --robust drdpo --geometry plain"
    assert found.notes == ("objective: dpo under drdpo + 0.1 · ipo; wrappers apply to dpo, the first loss",)
    assert plan(MIXED).notes == ("objective: dpo + 0.1 · ipo",)
    heavy = plan({**MIXED, "loss.dpo.weight": 2, "robust": ["drdpo"]})
    assert heavy.objective() == "2 · (dpo under drdpo) + 0.1 · ipo"


def test_a_recipe_lists_losses_with_weights() -> None:
    flat = flatten({"loss": ["dpo", {"name": "ipo", "weight": 0.1, "tau": 0.3}]}, "here")
    assert flat == {"loss": ["dpo", "ipo"], "loss.ipo.weight": 0.1, "loss.ipo.tau": 0.3}
    found = plan({**OWN, **flat}, {"loss.ipo.weight": "0.5"})
    assert [(m.weight, m.origins.get("weight")) for m in found.of("loss")] == [(1.0, None), (0.5, "layer 1")]
    away = plan({**OWN, **flat}, {"loss": ["ipo"]})
    assert (away.one("loss").weight, away.one("loss").options.model_dump()["tau"]) == (1.0, 0.3)
    assert plan({**OWN, **flat}, {"loss": "dpo"}).sentence() == "--loss dpo --geometry plain"


def test_bare_options_go_to_the_losses_that_have_them() -> None:
    found = plan({**OWN, "loss": ["dpo", "ipo", "simpo"], "loss.beta": 3, "loss.tau": 0.2})
    dpo, ipo, simpo = (method.options.model_dump() for method in found.of("loss"))
    assert (dpo["beta"], ipo["tau"], simpo["beta"]) == (3, 0.2, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": ["dpo", "ipo"], "loss.weight": 0.1}, "--loss.weight: name the method it belongs to"),
        ({"loss": "dpo", "loss.weight": 2}, "--loss.weight has no effect here: a weight is relative"),
        ({"loss": "dpo", "loss.dpo.weight": 2}, "--loss.dpo.weight has no effect here: a weight is relative"),
        ({"loss": ["dpo", "ipo"], "loss.simpo.weight": 2}, "--loss.simpo.weight: no loss 'simpo' in this run"),
        (
            {"loss": ["dpo", "ipo"], "loss.ipo.weight": 0},
            "--loss.ipo.weight: must be a number greater than 0 (got 0)",
        ),
        ({"loss": ["dpo", "ipo"], "loss.ipo.weight": "inf"}, "must be a number greater than 0 (got 'inf')"),
        ({"loss": ["dpo", "ipo"], "loss.ipo.weight": True}, "must be a number greater than 0 (got True)"),
        ({"loss": ["dpo", "dpo"]}, "--loss dpo is named twice"),
        ({"robust": ["drdpo"], "robust.weight": 1}, "--robust.weight: no wrapper of this run has that option"),
    ],
)
def test_words_that_make_no_mixture(values: dict[str, Any], message: str) -> None:
    assert message in refusal({**OWN, **values}).message


def test_wrappers_look_at_the_first_loss_alone() -> None:
    assert "wraps losses that read pairs, but loss 'unpaired' reads responses" in (
        refusal({**OWN, "loss": ["unpaired", "dpo"], "robust": ["of-pairs"]}).message
    )
    assert plan({**OWN, "loss": ["dpo", "unpaired"], "robust": ["of-pairs"]})
    assert "where loss 'one-sided' is not defined" in (
        refusal({**OWN, "loss": ["one-sided", "dpo"], "robust": ["flips"]}).message
    )
    assert plan({**OWN, "loss": ["dpo", "one-sided"], "robust": ["flips"]})


@pytest.mark.parametrize("losses", [["ipo", "drdpo"], ["drdpo", "ipo"]])
def test_the_loss_that_a_composition_wraps_is_the_first(losses: list[str]) -> None:
    found = plan({**OWN, "loss": losses, "loss.drdpo.weight": 2})
    assert found.objective() == "2 · (dpo under drdpo) + ipo"
    moved = "dpo goes first: what drdpo names with it applies to the first loss"
    assert (moved in found.notes) == (losses[0] == "ipo")


def test_wrappers_of_two_losses_are_refused() -> None:
    two = refusal({**OWN, "loss": ["drdpo", "safe"]})
    assert "--loss drdpo (--loss dpo --robust drdpo) and --loss safe" in two.message
    assert (two.exit_code, two.hint) == (3, "keep one of them, and name only the loss of the other")
    late = refusal({**OWN, "loss": ["ipo", "drdpo"], "robust": ["of-pairs"]})
    assert "--robust of-pairs is named beside ipo, the first loss" in late.message
    assert "put --loss drdpo before --loss ipo" in str(late.hint)
    assert plan({**OWN, "loss": ["drdpo", "ipo"], "robust": ["of-pairs"]}).objective() == (
        "(dpo under of-pairs, then drdpo over the step) + ipo"
    )


def test_names_joined_by_commas_and_mappings_show_the_list() -> None:
    assert refusal({**OWN, "loss": ["dpo,ipo"]}).hint == "repeat the flag: --loss dpo --loss ipo"
    found = resolve([Layer("recipe:x", {**OWN, "loss": "dpo, ipo"})], methods=known())
    assert isinstance(found, list)
    assert found[0].hint == "write a list: `loss: [dpo, ipo]`"
    for content, form in (
        ({"dpo": {"beta": 0.3}, "ipo": {"weight": 0.1}}, "[{name: dpo, beta: 0.3}, {name: ipo, weight: 0.1}]"),
        ({"dpo": 1, "ipo": 0.1}, "[{name: dpo, weight: 1}, {name: ipo, weight: 0.1}]"),
        ({"dpo": None}, "[{name: dpo}]"),
    ):
        with pytest.raises(UsageError) as caught:
            flatten({"loss": content}, "here")
        assert caught.value.hint == f"write `loss: {form}`"
    with pytest.raises(UsageError, match="must be a name or a mapping"):
        flatten({"loss": {"beta": 0.3}}, "here")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("loss.ipo.tau", "add --loss ipo"),
        ("loss.ipo.weight", "add --loss ipo"),
        ("loss.dpoo.beta", "did you mean --loss.dpo.beta?"),
        ("loss.zzz.beta", "`alignzoo ls loss` lists the names"),
    ],
)
def test_options_of_a_loss_that_is_not_in_the_run(key: str, hint: str) -> None:
    found = refusal({**OWN, "loss": "dpo", key: 1})
    assert (found.message, found.hint) == (f"--{key}: no loss {key.split('.')[1]!r} in this run", hint)


def test_a_plan_with_a_mixture_is_read_back_and_is_a_recipe(tmp_path: Path) -> None:
    before = plan(MIXED)
    write_plan(before, tmp_path)
    again = read_plan(tmp_path)
    assert (again.methods, again.notes) == (before.methods, before.notes)
    content = plan_to_dict(before)
    assert (content["loss"]["name"], [term["name"] for term in content["terms"]]) == ("dpo", ["ipo"])
    assert content["terms"][0]["weight"] == {"value": 0.1, "from": "layer 0"}
    assert {**plain_values(content), "settings": None}["loss.ipo.weight"] == 0.1
    layer = read_recipe(str(tmp_path))
    heavier = require(resolve([layer, Layer("flag", {"loss.ipo.weight": 0.2})]))
    assert heavier.of("loss")[1].weight == 0.2


def test_a_word_with_a_name_wins_over_a_bare_one_of_the_same_layer() -> None:
    found = plan({**OWN, "loss": ["dpo", "simpo"], "loss.simpo.beta": 3, "loss.beta": 2})
    assert [method.options.model_dump()["beta"] for method in found.of("loss")] == [2, 3]
