"""The pages on interfaces, hooks, the step, the contract and what is public name what there is, and no more."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import get_args

from docs_helpers import DOCS, blocks, codes, rows, section, text_of

from alignzoo.contract.card import OLDEST_PLUGIN_API, PLUGIN_API, Card, Extension, Need
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.responses import ResponseBatch
from alignzoo.pairs import PairBatch
from alignzoo.plugin.declared import HOOKS
from alignzoo.step.context import StepContext
from alignzoo.step.setup import SetupContext
from alignzoo.testing import RULES


def test_every_hook_has_its_section_and_no_section_is_of_another() -> None:
    headings = re.findall(r"^## (alignzoo_\w+)$", text_of("hooks"), re.M)
    assert headings == list(HOOKS)
    assert [codes(row[0])[0] for row in rows(text_of("hooks").partition("## ")[0])] == list(HOOKS)


def test_the_example_of_the_hooks_implements_each_of_them() -> None:
    [plugin] = [b for b in blocks(DOCS / "hooks.md") if b.marker.startswith("file: ") and b.marker.endswith(".py")]
    assert re.findall(r"^@hookimpl\ndef (\w+)\(", plugin.text, re.M) == list(HOOKS)


def test_the_fields_of_extensions_are_named() -> None:
    [sentence] = re.findall(r"are `Extension`s: (.+?)\.", text_of("hooks"), re.S)
    assert set(codes(sentence)) == set(Extension.model_fields)


def test_every_field_of_pair_batch_is_in_the_table() -> None:
    named = [name for row in rows(section("interfaces", "PairBatch")) for name in codes(row[0])]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(PairBatch))


def test_every_field_of_response_batch_is_in_the_table() -> None:
    named = [name for row in rows(section("interfaces", "ResponseBatch")) for name in codes(row[0])]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(ResponseBatch))


def test_every_field_of_a_card_is_in_the_table() -> None:
    shared, own, needs = re.split(r"<!-- generated: (?:facts|needs) -->", section("interfaces", "The card"))
    assert {codes(row[0])[0] for row in rows(shared)} == set(Card.model_fields)
    assert [(row[0], *codes(row[1])) for row in rows(own)] == [
        (name, fact) for name, kind in KINDS.items() for fact in kind.facts
    ]
    assert {codes(row[0])[0] for row in rows(needs)} == set(get_args(Need))


def test_every_verb_of_a_step_is_in_the_table() -> None:
    public = {name for name, value in vars(StepContext).items() if not name.startswith("_") and _is_verb(value)}
    listed = [code.partition("(")[0] for row in rows(section("steps", "What `ctx` offers")) for code in codes(row[0])]
    assert set(listed) == public | {"step", "engine.model"}


def _is_verb(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, property)


def test_what_setup_gets_is_named() -> None:
    text = section("steps", "What `ctx` offers")
    for field in dataclasses.fields(SetupContext):
        assert re.search(rf"`{field.name}\b", text), field.name


def test_a_property_is_shown_as_one() -> None:
    assert "    @property\n    def messages(self)" in text_of("interfaces")


def test_every_rule_of_the_contract_is_named_under_its_kind() -> None:
    shared = {codes(row[0])[0] for row in rows(section("contract", "For all kinds"))}
    for name, kind in KINDS.items():
        named = {codes(row[0])[0] for row in rows(section("contract", f"For {kind.title.lower()}"))}
        assert named | shared == {rule.name for rule in RULES[name]}


def test_what_is_called_public_is_there() -> None:
    for modules, names in rows(section("compatibility", "What is public")):
        module = importlib.import_module(codes(modules)[0])
        for name in codes(names):
            if hasattr(module, name):
                continue
            importlib.import_module(f"{module.__name__}.{name}")


def test_the_versions_that_are_spoken() -> None:
    assert (OLDEST_PLUGIN_API, PLUGIN_API) == (1, 2), "docs/compatibility.md says that contracts 1 and 2 are spoken"
