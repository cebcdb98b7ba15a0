"""What the documentation takes from the code is what the code says now; links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from docs_helpers import PAGES, ROOT, blocks

from alignzoo.contract.card import Card
from alignzoo.data.formats import choose_layout, layouts
from alignzoo.data.rows import ROW_TYPES, identical
from alignzoo.data.shapes import SHAPES
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer, read_recipe, recipe_names
from alignzoo.plan.resolve import resolve
from alignzoo.plugin.registry import registry
from alignzoo.stages.parse import parse_stages


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_script("skeletons")  # each imports the one before
_script("reference_blocks")
_script("method_pages")
_script("scale_blocks")
GENERATE = _script("generate_methods")
RECORD = _script("record_example")


def test_generated_pages_and_tables_are_in_step() -> None:
    wanted = GENERATE.outputs()
    for path, text in wanted.items():
        assert path.is_file(), f"{path.name} is missing: run `make docs`"
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of step: run `make docs`"
    assert GENERATE.leftovers(wanted) == []


def test_every_method_has_a_page_and_a_row_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for method in GENERATE.own_methods():
        assert f"(docs/methods/{method.kind}-{method.name}.md)" in readme


def test_the_example_of_the_readme_is_of_this_sandbox() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"<!-- recorded: {RECORD.stamp()} -->" in readme, "run `python docs/record_example.py`"


def test_recorded_output_keeps_the_ends_of_the_training() -> None:
    lines = ["data: x", "reading a", "training 1/3", "training 2/3", "training 3/3", "evaluating 1/1", "3 steps"]
    assert RECORD.shortened(lines) == ["data: x", "training 1/3", "training 3/3", "3 steps"]


CARDS = [method for plugin, method in registry().entries() if isinstance(method, Card)]
TESTS = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))


@pytest.mark.parametrize("card", [c for c in CARDS if c.target.startswith("alignzoo_")], ids=lambda c: c.name)
def test_what_a_card_calls_verified_has_its_test(card: Card) -> None:
    for source in card.verified:
        assert f"def {source.test}(" in TESTS, f"{card.kind} {card.name}: no test is called {source.test}"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resolves(name: str, tmp_path: Path) -> None:
    layer = read_recipe(name)
    if layer.stages:
        named = Layer("flag", {"model": "sandbox", "data": "rows.jsonl"})
        assert len(parse_stages([layer, named], tmp_path)) == len(layer.stages)
    else:
        assert isinstance(resolve([layer]), Plan)


@pytest.mark.parametrize("backend", ["fsdp1", "deepspeed"])
def test_launches_are_refused_as_the_docs_say(backend: str) -> None:
    assert "FSDP 1 and DeepSpeed are refused" in (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    problems = resolve([], distributed=backend)
    assert not isinstance(problems, Plan)
    assert problems[0].exit_code == 3


def _row_examples() -> dict[str, dict[str, object]]:
    found = [block for block in blocks(ROOT / "docs" / "data.md") if block.marker.startswith("format: ")]
    return {block.marker.removeprefix("format: "): json.loads(block.text) for block in found}


def test_every_layout_has_a_row_in_the_docs_and_is_recognised_by_it() -> None:
    from datasets import Dataset

    rows = _row_examples()
    assert set(rows) == {layout.name for layout in layouts(own=True)}
    for name, row in rows.items():
        asked = name if name.startswith("triples") or name == "pku-saferlhf-helpful" else None  # detected as another
        layout = choose_layout(Dataset.from_list([row]), asked)
        assert layout.name == name
        assert isinstance(layout.normalise(row), ROW_TYPES[layout.shape])


def test_every_reason_to_drop_a_row_is_explained() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "alignzoo" / "data").rglob("*.py"))
    named = re.findall(r'Drop\(f?"([^"]+)"', code)
    sides = ("prompt", "chosen", "rejected", "response")
    reasons = {re.sub(r"\{[^}]+\}", side, reason) for reason in named for side in sides}
    reasons |= {identical(shape) for shape in SHAPES}
    assert len(reasons) > 5
    assert {reason for reason in reasons if f"`{reason}`" not in page} == set()


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{target}: there is no {linked}"
        if anchor:
            assert anchor in _anchors(linked), f"{target}: {linked.name} has no such heading"
