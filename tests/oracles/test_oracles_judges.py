"""Prompts and phrases of published judges are their publishers', to the letter."""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from alignzoo_judges.refusal_lists import LISTS

PROMPTS = {
    "harmbench": lambda presets: presets.TEMPLATES,
    "wildguard": lambda presets: {"": (presets.TEMPLATE,)},
}


def recorded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return content


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_the_publishers(name: str) -> None:
    record, ours = recorded(name), PROMPTS[name](import_module(f"alignzoo_judges.presets.{name}"))
    for form, digests in record["prompts"].items():
        for prompt, expected in zip(ours[form], digests, strict=True):
            for placeholder, theirs in record["placeholders"].items():
                prompt = prompt.replace(f"{{{placeholder}}}", theirs)
            assert digest(prompt) == expected, form


def test_published_lists_are_the_publishers() -> None:
    assert {name: digest("\n".join(phrases)) for name, phrases in LISTS.items()} == recorded("refusal")["phrases"]
