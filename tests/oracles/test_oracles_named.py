"""Cards name the code that they were compared with, and every recorded file is one that a card names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignzoo import list_methods
from alignzoo.plugin import Card

FILES = sorted(Path(__file__).parent.glob("*.json"))
NAMED = {card.name: [source.against for source in card.verified] for card in list_methods() if isinstance(card, Card)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_card_names_repository_and_commit(path: Path) -> None:
    source = json.loads(path.read_text(encoding="utf-8"))["source"]
    name = f"{source['repository'].removeprefix('https://github.com/')}@{source['commit'][:7]}"
    assert any(name in against for against in NAMED[path.stem])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_small_and_explained(path: Path) -> None:
    assert path.stat().st_size <= 30_000
    assert f"`{path.name}`" in (path.parent / "README.md").read_text(encoding="utf-8")
