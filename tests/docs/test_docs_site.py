"""The site builds without a warning, has every page, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_helpers import ROOT

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def _pages(entry: Any) -> list[str]:
    """The files of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in _pages(part)]


def test_the_navigation_has_every_page_once_and_no_other() -> None:
    docs = ROOT / "docs"
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md") if "examples" not in path.parts}
    listed = _pages(CONFIG["nav"])
    assert sorted(listed) == sorted(there)


def test_the_theme_asks_for_no_fonts() -> None:
    assert CONFIG["theme"]["font"] is False


class _Loads(HTMLParser):
    """What a page makes a browser fetch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found += [named[key] for key in ("src", "srcset") if key in named]
        if tag == "link" and not {"canonical", "next", "prev"} & set(named.get("rel", "").split()):
            self.found.append(named.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    for page in _pages(CONFIG["nav"]):
        name = page.removesuffix(".md").replace("README", "index")
        assert (site / f"{name}.html").is_file()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        assert [url for url in loads.found if re.match(r"(https?:)?//", url)] == []


_NAMES = """
a article aside b body br button code dd del details dialog div dl dt em figcaption figure footer form h1 h2 h3 h4 h5 h6
head header hr html i img input kbd label li link main meta nav noscript ol p path pre script section small span strong
style sub summary sup svg table tbody td th thead title tr ul
"""
HTML = set(_NAMES.split())


class _Tags(HTMLParser):
    """The names of all tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)


def test_no_page_has_a_tag_that_html_does_not_know(site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        tags = _Tags()
        tags.feed(page.read_text(encoding="utf-8"))
        assert tags.found - HTML == set(), f"{page.name}: a word in <> is taken for a tag"


def test_no_page_shows_an_escape(site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        code = r"<(script|pre|code).*?</\1>"
        text = re.sub(code, "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"\\&lt;|\\<\w|&amp;lt;", text), page.name


def test_search_works_from_disk(site: Path) -> None:
    """Without a server there is neither ``fetch`` nor a worker: the index is a script, the worker a frame."""
    assert (site / "search" / "search_index.js").is_file()
    assert 'src="assets/iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "assets" / "iframe-worker.js").is_file()


def test_no_style_sheet_loads_anything_from_elsewhere(site: Path) -> None:
    sheets = sorted(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//[^\"')]*", text) == []


def test_helpers_and_examples_are_no_part_of_the_site(site: Path) -> None:
    assert not list(site.rglob("*.py"))
    assert not (site / "examples").exists()


def test_tables_and_code_are_rendered(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = re.sub(r"<pre.*?</pre>|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "| --- |" not in text, f"{page.name}: a table is not one"
        assert "```" not in text, f"{page.name}: a block of code is not one"
