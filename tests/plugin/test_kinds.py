"""The table of kinds: cards of their own, compositions of any kind, and a kind that only has a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from alignzoo.cli.describe import method_dict
from alignzoo.cli.flags import method_options
from alignzoo.contract.card import Card, Composition, Options
from alignzoo.contract.geometry import GeometryCard, GeometryController
from alignzoo.contract.kinds import KINDS, Kind
from alignzoo.contract.loss import LossCard, PreferenceLoss
from alignzoo.contract.method import Method
from alignzoo.contract.robust import RobustWrapper
from alignzoo.errors import AlignzooError, BrokenPluginError
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import plan_to_dict, read_plan, write_plan
from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.select import select
from alignzoo.plan.started import plain_values, stated_values
from alignzoo.plugin.build import instantiate
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import Registry, registry

OWN = {"model": "sandbox", "data": "sandbox"}
FACTS: dict[str, Any] = {"target": "nowhere:Method", "summary": "s", "formula": "f"}


def known_with(*methods: Card | Composition) -> Registry:
    return Registry([*registry().plugins, Plugin("theirs", "1", "theirs", "theirs", list(methods))])


def problems_of(values: dict[str, Any], methods: Registry | None = None) -> list[AlignzooError]:
    problems = resolve([Layer("flag", {**OWN, **values})], methods=methods)
    assert isinstance(problems, list)
    return problems


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_is_built_in_the_class_of_its_kind(kind: str) -> None:
    card = Card(kind=kind, name="mine", **FACTS)
    assert type(card) is KINDS[kind].card
    assert set(KINDS[kind].facts) <= set(method_dict(registry().plugins[0], card))


def test_every_card_class_says_its_kind() -> None:
    for name, kind in KINDS.items():
        assert kind.card.model_fields["kind"].default == name
        assert issubclass(kind.base, Method)


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="there is no kind 'geometri'; did you mean geometry"):
        Card(kind="geometri", name="mine", **FACTS)


def test_facts_of_other_kinds_are_dropped_from_cards_of_api_1_only() -> None:
    assert Card(kind="loss", name="mine", passes=2, batch_coupled=True, **FACTS) == LossCard(
        name="mine", batch_coupled=True, **FACTS
    )
    with pytest.raises(ValidationError, match="'passes' belongs to kind geometry, not to loss"):
        Card(kind="loss", name="mine", passes=2, api=2, **FACTS)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Card(kind="loss", name="mine", passess=2, **FACTS)


class Inner(GeometryController):
    def per_pair(self, loss: Any, pairs: Any) -> Any:
        return loss(pairs)


def test_a_controller_that_changes_values_is_broken_and_told_what_to_become() -> None:
    card = GeometryCard(name="inner", **{**FACTS, "target": f"{__name__}:Inner"})
    with pytest.raises(BrokenPluginError, match=r"has `per_pair` of plugin API 1") as error:
        instantiate(card, Options())
    assert "write a robust wrapper, and a Composition of kind geometry" in str(error.value.hint)


class NoBatch(PreferenceLoss):
    def metrics(self) -> Any:
        return {}


class Flexible(PreferenceLoss):
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def metrics(self, responses: Any, more: int = 3) -> Any: ...

    @staticmethod
    def rewards(batch: Any) -> Any: ...


class TooMuch(RobustWrapper):
    def per_pair(self, loss: Any, pairs: Any, weight: float) -> Any: ...


class NotAMethod(PreferenceLoss):
    metrics = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("loss", NoBatch, r"'mine': metrics\(\) cannot be called as metrics\(batch\) \(.*test_kinds\.py:\d+"),
        ("robust", TooMuch, r"per_pair\(loss, pairs, weight\) cannot be called as per_pair\(loss, pairs\)"),
        ("loss", NotAMethod, r"`metrics` is a NoneType, expected metrics\(batch\)"),
    ],
)
def test_methods_with_other_arguments_are_refused_before_they_are_called(kind: str, target: type, message: str) -> None:
    card = Card(kind=kind, name="mine", **{**FACTS, "target": f"{__name__}:{target.__name__}"})
    with pytest.raises(BrokenPluginError, match=message) as error:
        instantiate(card, Options())
    assert error.value.exit_code == 4
    assert KINDS[kind].base.__name__ in str(error.value.hint)


def test_arguments_may_be_named_otherwise_and_more_be_optional() -> None:
    card = Card(kind="loss", name="mine", **{**FACTS, "target": f"{__name__}:Flexible"})
    assert isinstance(instantiate(card, Options()), Flexible)


class Weighed(Options):
    weight: float = Field(2.0, description="own")


def test_the_word_weight_belongs_to_mixtures() -> None:
    with pytest.raises(ValidationError, match="`weight` is reserved for weights in a mixture"):
        Card(kind="loss", name="mine", options=Weighed, api=2, **FACTS)
    old = Card(kind="loss", name="old", options=Weighed, **FACTS)  # of API 1: its option keeps its meaning
    values = {**OWN, "loss": ["dpo", "old"], "loss.old.weight": 3}
    plan = require(resolve([Layer("flag", values)], methods=known_with(old)))
    assert [method.weight for method in plan.of("loss")] == [1.0, 1.0]
    assert plan.of("loss")[1].options.model_dump() == {"weight": 3.0}


def test_a_composition_states_its_parts_by_kind_in_either_spelling() -> None:
    keywords = Composition(name="mix", summary="s", loss="dpo", robust=("drdpo",), geometry="sam")
    parts = Composition(name="mix", summary="s", parts={"geometry": "sam", "robust": ("drdpo",), "loss": ("dpo",)})
    assert keywords == parts
    assert keywords.flags() == "--loss dpo --robust drdpo --geometry sam"
    assert list(keywords.parts) == ["loss", "robust", "geometry"]
    with pytest.raises(ValidationError, match="must name a part of that kind"):
        Composition(kind="geometry", name="mix", summary="s", robust="drdpo")


def test_shapo_reward_is_shapo_token_under_soft_label(tmp_path: Path) -> None:
    def plan(**values: Any) -> Plan:
        return require(resolve([Layer("flag", {**OWN, **values})]))

    options = {"geometry.rho": 0.1, "robust.k": 5}
    named = plan(geometry="shapo-reward", **options)
    parts = plan(geometry="shapo-token", robust=["soft-label"], **options)
    assert named.methods == parts.methods
    assert named.notes == ("--geometry shapo-reward is short for --geometry shapo-token --robust soft-label",)
    around = plan(geometry=["shapo-reward", "ema"], robust=["drdpo"])
    assert around.sentence() == (
        "--loss dpo --robust soft-label --robust drdpo --geometry shapo-token --geometry ema"
    )  # soft labels lie around the loss, inside of all other wrappers
    both = plan(geometry="shapo-reward", robust=["drdpo", "soft-label"])
    assert [method.card.name for method in both.of("robust")] == ["drdpo", "soft-label"], "an order that was stated"
    write_plan(around, tmp_path)
    assert read_plan(tmp_path).methods == around.methods


@pytest.mark.parametrize("word", ["geometry.k", "geometry.shapo-reward.k"])
def test_options_of_a_composition_belong_to_its_parts(word: str) -> None:
    [problem] = problems_of({"geometry": "shapo-reward", word: 5})
    assert (problem.message, problem.hint) == ("geometry 'shapo-token' has no option 'k'", "did you mean --robust.k?")
    listed = flatten({"geometry": [{"name": "shapo-reward", "rho": 0.2}, "ema"]}, "here")
    found = require(resolve([Layer("recipe:x", {**OWN, **listed})]))
    assert found.one("geometry").options.model_dump()["rho"] == 0.2


def test_parts_of_compositions_do_not_meet_others_of_their_kind() -> None:
    mix = Composition(name="mix", summary="s", loss="ipo", geometry="sam")
    other = Composition(kind="geometry", name="asam-ipo", summary="s", geometry="asam", loss="ipo")
    known = known_with(mix, other)
    [problem] = problems_of({"loss": "mix", "geometry": "asam"}, known)
    assert problem.message == "mix already implies --geometry sam, so it cannot be combined with --geometry asam"
    assert problem.hint == "name the parts yourself: --loss ipo --geometry sam"
    [problem] = problems_of({"geometry": "asam-ipo", "loss": "simpo"}, known)
    assert problem.message == "asam-ipo already implies --loss ipo, so it cannot be combined with --loss simpo"
    same = require(resolve([Layer("flag", {**OWN, "loss": "mix", "geometry": ["ema", "sam"]})], methods=known))
    assert same.sentence() == "--loss ipo --geometry sam --geometry ema"


def test_a_composition_of_compositions_is_taken_apart_to_the_end() -> None:
    outer = Composition(kind="geometry", name="outer", summary="s", geometry="shapo-reward")
    loop = Composition(name="loop", summary="s", loss="loop")
    found = require(resolve([Layer("flag", {**OWN, "geometry": "outer"})], methods=known_with(outer)))
    assert found.sentence() == "--loss dpo --robust soft-label --geometry shapo-token"
    [problem] = problems_of({"loss": "loop"}, known_with(loop))
    assert problem.message == "the composition loop contains itself: --loss loop"


class PosthocCard(Card):
    """A kind that this test adds."""

    kind: Literal["posthoc"] = "posthoc"
    rounds: int = 1


class PosthocOptions(Options):
    share: float = Field(0.5, gt=0, description="share of the weights")


@pytest.fixture
def posthoc(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with methods of a kind that nothing but its record knows."""
    record = Kind(
        name="posthoc",
        noun="edit",
        base=Method,
        card=PosthocCard,
        multiplicity="stack",
        stage="weights after training",
        help="edit of the weights after training (repeatable)",
        rules="nowhere:RULES",
        template="posthoc",
        rivals={"rounds": "go round"},
    )
    monkeypatch.setitem(KINDS, "posthoc", record)
    return known_with(*(Card(kind="posthoc", name=name, options=PosthocOptions, **FACTS) for name in ("one", "two")))


def test_a_new_kind_needs_only_its_record(posthoc: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = flatten({**OWN, "posthoc": [{"name": "one", "share": 0.25}]}, "here")
    plan = require(resolve([Layer("recipe:x", recipe)], methods=posthoc))
    assert [(m.card.name, m.options.model_dump(), m.origins) for m in plan.of("posthoc")] == [
        ("one", {"share": 0.25}, {"share": "recipe:x"})
    ]
    assert plan.sentence() == "--loss dpo --geometry plain --posthoc one"
    found = select([Layer("flag", {**OWN, "posthoc": ["one"]})], posthoc)
    assert "posthoc.share" in [option.key for option in method_options(found)]
    monkeypatch.setattr("alignzoo.plan.planfile.registry", lambda: posthoc)
    content = plan_to_dict(plan)
    assert content["posthoc"][0]["name"] == "one"
    assert stated_values(content)["posthoc.one.share"] == {"value": 0.25, "from": "recipe:x"}
    assert plain_values(content)["posthoc"] == ["one"]
    [twice] = problems_of({"posthoc": ["one", "one"]}, posthoc)
    assert twice.message == "--posthoc one is named twice"
    both = problems_of({"posthoc": ["one", "two"]}, posthoc)
    assert [problem.message for problem in both] == ["one and two each go round, but only one can"]
    none = require(resolve([Layer("recipe:x", recipe), Layer("flag", {"posthoc": ["none"]})], methods=posthoc))
    assert none.of("posthoc") == ()
    [problem] = problems_of({"posthoc": ["one"], "posthoc.shere": 1}, posthoc)
    assert problem.hint == "did you mean --posthoc.share?"
    assert KINDS["posthoc"].title == "Posthoc edits"


def test_a_plan_that_was_written_before_a_kind_there_is_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plan(require(resolve([Layer("flag", OWN)])), tmp_path)
    record = Kind(
        name="posthoc",
        noun="edit",
        base=Method,
        card=PosthocCard,
        multiplicity="optional",
        stage="s",
        help="h",
        rules="nowhere:RULES",
        template="posthoc",
        default=lambda cards, needs: ("theirs:one",),
    )
    monkeypatch.setitem(KINDS, "posthoc", record)
    known = known_with(Card(kind="posthoc", name="one", options=PosthocOptions, **FACTS))
    for module in ("planfile", "resolve", "select"):
        monkeypatch.setattr(f"alignzoo.plan.{module}.registry", lambda: known)
    assert read_plan(tmp_path).one("posthoc").card.name == "one"


def test_a_guide_that_is_its_own_contrast_is_noted() -> None:
    words = {**OWN, "aggregation": "tis-dpo", "guide": "sandbox"}
    noted = [require(resolve([Layer("flag", {**words, "contrast": one})])).notes for one in ("sandbox", "gpt2")]
    assert ["favour none" in notes[-1] for notes in noted] == [True, False]


@pytest.mark.parametrize(("loss", "option"), [("ipo", "logps"), ("cpo", "nll")])
def test_a_sum_is_refused_where_an_aggregation_leaves_none(loss: str, option: str) -> None:
    words = {**OWN, "loss": loss, f"loss.{option}": "sum"}
    require(resolve([Layer("flag", words)]))
    with pytest.raises(AlignzooError, match="aggregated by sum, not by 'sampo'"):
        require(resolve([Layer("flag", {**words, "aggregation": "sampo"})]))


def test_the_order_of_a_stack_is_noted() -> None:
    stack = {**OWN, "robust": ["drdpo", "cdpo"]}
    assert require(resolve([Layer("flag", stack)])).notes == ("objective: dpo under cdpo, then drdpo over the step",)
    assert require(resolve([Layer("flag", {**OWN, "robust": ["drdpo"]})])).notes == ()
