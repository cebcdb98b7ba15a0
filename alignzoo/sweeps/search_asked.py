"""Ranges as typed: ``--range WORD``, ``--range WORD=LOW:HIGH``, ``--range WORD=a,b,c``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.errors import UsageError
from alignzoo.plan.plan import Plan
from alignzoo.sweeps.search import value_in
from alignzoo.sweeps.search_ranges import Range, Scale, Words, space, stated_scale


def asked_ranges(asked: Sequence[str], plan: Plan) -> dict[str, Range]:
    """The ranges of a search: those asked for, or of all options of the plan's methods.

    Raises:
        UsageError: a word that the plan has not, a range that is none, or nothing to search.
    """
    cards = space(plan)
    if not asked and not cards:
        raise UsageError(
            "these methods have no options to search", hint="state a range yourself, such as --range lr=1e-6:1e-4"
        )
    return dict(_one(text, plan, cards) for text in asked) if asked else cards


def _one(text: str, plan: Plan, cards: dict[str, Range]) -> tuple[str, Range]:
    word, stated, values = text.partition("=")
    if not stated:
        if word not in cards:
            hint = suggest(word, cards) or f"state a range, such as --range {word}=LOW:HIGH"
            raise UsageError(f"--range {word}: no card has a range for it", hint=hint)
        return word, cards[word]
    now = value_in(plan, word)
    low, colon, high = values.partition(":")
    if not colon:
        words = [_value(part) for part in values.split(",") if part]
        if len(words) < 2:
            raise UsageError(f"--range {text}: a single value is no range", hint=f"use --{word} {values}")
        return word, Words(tuple(words))
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = (1.0, 0.0)
    if not ends[0] < ends[1]:
        raise UsageError(f"--range {text}: {shown(values)} is no range", hint=f"write --range {word}=LOW:HIGH")
    whole = isinstance(now, int) or (now is None and all(part.strip().isdigit() for part in (low, high)))
    scale: Scale = stated_scale(*ends, integer=whole)
    return word, scale


def _value(text: str) -> Any:
    """As YAML reads it: ``yes`` is true, ``3`` a number."""
    return yaml.safe_load(text)
