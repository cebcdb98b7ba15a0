"""The pages of methods and their index: figures, citations, and the columns that the filters read."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from docs_helpers import DOCS

from alignzoo.contract.card import Card, Composition
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry

METHODS = [method for plugin, method in registry().entries() if plugin.distribution == OWN_DISTRIBUTION]
FIGURES = sorted((DOCS / "methods" / "figures").glob("*.svg"))


def _page(method: Card | Composition) -> str:
    return (DOCS / "methods" / f"{method.kind}-{method.name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.kind}-{method.name}")
def test_a_page_has_what_a_reader_needs(method: Card | Composition) -> None:
    text = _page(method)
    assert ("\nalignzoo " if method.kind == "judge" else "\nalignzoo run --") in text
    assert ("\n## Paper\n" in text) == (method.paper is not None)
    if method.paper is not None:
        assert method.paper.bibtex(method.paper.key(method.name)) in text
    if isinstance(method, Card):
        assert "**Not with:**" in text
        assert f"- **Family:** {method.family}." in text
        if method.experimental:
            assert "\n**Experimental.**" in text
    if isinstance(method, Card) and method.kind == "loss":
        assert f"(figures/loss-{method.name}.svg)" in text


def test_every_figure_is_on_a_page() -> None:
    assert len(FIGURES) > 20
    named = {figure for method in METHODS for figure in re.findall(r"\(figures/([\w.-]+)\)", _page(method))}
    assert {path.name for path in FIGURES} == named


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_a_figure_is_small_plain_and_loads_nothing(path: object) -> None:
    assert hasattr(path, "read_text")
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= 20_000
    tree = ElementTree.fromstring(text)
    tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert tags <= {"svg", "title", "g", "path", "text"}
    assert not re.search(r"href|url\(|nan|inf\b", text.replace("http://www.w3.org/2000/svg", ""))


def test_the_filters_read_the_columns_that_they_mean() -> None:
    index = (DOCS / "methods" / "README.md").read_text(encoding="utf-8")
    script = (DOCS / "assets" / "catalogue.js").read_text(encoding="utf-8")
    heads = {line for line in index.splitlines() if line.startswith("| name |")}
    assert len(heads) == 1
    columns = [cell.strip() for cell in heads.pop().strip("|").split("|")]
    found = re.search(r"COLUMNS = \{(.+?)\}", script)
    assert found
    meant = {name: int(place) for name, place in re.findall(r"(\w+): (\d+)", found[1])}
    assert {name: columns[place] for name, place in meant.items()} == {name: name for name in meant}
    assert f"cells.length === {len(columns)}" in script
    assert '<div id="catalogue"></div>' in index
    assert index.count("\n| [`") == len(METHODS)
