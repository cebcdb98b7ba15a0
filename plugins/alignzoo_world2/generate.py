"""Seeded preference pairs and evaluation prompts of world 2.

==========  ============================================================================  =========
split       what it holds                                                                 harmful
==========  ============================================================================  =========
train       trained words and intents, training goals                                     half
validation  the mixture of ``train`` over goals of its own, for choosing settings         half
test        trained words and intents, goals that are never trained on                    yes
ood-intents combinations of classes that are never trained on                             yes
ood-words   objects or recipients that are never trained on                               yes
benign      harmless requests, goals that are never trained on                            no
borderline  harmless requests for a suspect object and purpose: the recipient is exempt   no
==========  ============================================================================  =========

No two splits share a goal, and which goals a split has depends on the world alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from alignzoo_sandbox.generate import Prompt, row

from alignzoo.errors import UsageError
from alignzoo_world2.world import PHRASINGS, Goal, Kind, comply, refuse, world

ATTACK_SPLITS = ("test", "ood-intents", "ood-words")
HARMLESS_SPLITS = ("benign", "borderline")
EVALUATION_SPLITS = ATTACK_SPLITS + HARMLESS_SPLITS
SPLITS = ("train", "validation", *EVALUATION_SPLITS)

TRAIN_PAIRS = 8192
VALIDATION_PAIRS = 1024
EVALUATION_PROMPTS = 1024

SHARES: dict[Kind, float] = {"suspect": 0.34, "barred": 0.16, "innocent": 0.34, "exempt": 0.16}
"""Of the kinds among training pairs."""


def _trained(side: str, *kinds: Kind) -> Callable[[Goal], bool]:
    return lambda goal: goal.kind in kinds and goal.side == side and not goal.new_intent and not goal.new_word


_BELONGS: dict[str, Callable[[Goal], bool]] = {
    "train": _trained("train", *SHARES),
    "validation": _trained("validation", *SHARES),
    "test": _trained("test", "suspect", "barred"),
    "ood-intents": lambda goal: goal.new_intent and not goal.new_word,
    "ood-words": lambda goal: goal.harmful and goal.new_word and not goal.new_intent,
    "benign": _trained("test", "innocent", "exempt"),
    "borderline": _trained("test", "exempt"),
}


@cache
def _requests(split: str, seed: int) -> dict[Kind, tuple[tuple[Goal, str], ...]]:
    """Every request of a split of a world, by the kind of its goal."""
    pools: dict[Kind, list[tuple[Goal, str]]] = {kind: [] for kind in SHARES}
    for goal in world(seed).goals:
        if _BELONGS[split](goal):
            pools[goal.kind] += [(goal, phrasing) for phrasing in PHRASINGS]
    return {kind: tuple(pool) for kind, pool in pools.items() if pool}


def _sizes(split: str, n: int, kinds: Sequence[Kind]) -> dict[Kind, int]:
    """How many of ``n`` prompts each kind gives: by ``SHARES``, among those that the split has."""
    total, sizes = sum(SHARES[kind] for kind in kinds), {}
    for kind in kinds[1:]:
        sizes[kind] = round(n * SHARES[kind] / total)
    return {kinds[0]: n - sum(sizes.values()), **sizes}


def prompts(split: str, n: int = EVALUATION_PROMPTS, seed: int = 0, world: int = 0) -> list[Prompt[Goal]]:
    """``n`` different requests of a split of a world, the same ones for the same seed.

    Raises :class:`~alignzoo.errors.UsageError` for an unknown split or more prompts than the split has.
    """
    if split not in _BELONGS:
        raise UsageError(f"unknown split {split!r} of world 2", hint=f"splits: {', '.join(SPLITS)}")
    rng = random.Random(f"{split}:{seed}")
    pools = _requests(split, world)
    drawn: list[Prompt[Goal]] = []
    for kind, size in _sizes(split, n, list(pools)).items():
        if size > len(pools[kind]):
            raise UsageError(
                f"split {split!r} of world 2 has {len(pools[kind])} {kind} prompts, not {size}", hint="ask for fewer"
            )
        drawn += [
            Prompt(({"role": "user", "content": goal.fill(phrasing)},), goal, goal.kind)
            for goal, phrasing in rng.sample(pools[kind], size)
        ]
    rng.shuffle(drawn)
    return drawn


def preference_rows(split: str = "train", n: int = TRAIN_PAIRS, seed: int = 0, world: int = 0) -> list[dict[str, Any]]:
    """A preference pair for each of ``prompts(split, n, seed, world)``, in the conversational format.

    A row holds ``prompt`` (messages), ``chosen`` and ``rejected`` (one message each), ``chosen_safe``,
    ``rejected_safe`` and ``group`` (the kind of the combination). Harmful request: the refusal is chosen, the compliant
    answer is rejected and unsafe. Harmless request: the compliant answer is chosen, the refusal is rejected, both are
    safe. Raises as :func:`prompts` does.
    """
    rng = random.Random(f"answers:{split}:{seed}")
    drawn = prompts(split, n, seed, world)
    return [row(prompt, comply(prompt.goal, rng), refuse(rng)) for prompt in drawn]
