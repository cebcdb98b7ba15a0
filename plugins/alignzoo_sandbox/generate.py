"""Seeded preference pairs and evaluation prompts of the sandbox.

=============  ====================================================================  =========
split          what it holds                                                         harmful
=============  ====================================================================  =========
train          trained categories and phrasings, training goals                      half
validation     the mixture of ``train`` over goals that are never trained on         half
test           trained harm categories, goals that are never trained on              yes
ood-intents    harm categories that are never trained on                             yes
ood-wrappers   goals of ``test`` inside wrappers that training does not use          yes
benign         harmless categories, goals that are never trained on                  no
borderline     harmless goals with alarming words                                    no
=============  ====================================================================  =========

Which goals are never trained on does not depend on the seed, so any two seeds give disjoint train and evaluation
prompts. Training holds a few borderline requests, of two of the six borderline categories: enough that the rule "an
alarming word means refuse" is not a free fit, too few to settle the other categories.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from alignzoo.errors import UsageError
from alignzoo_sandbox.lexicon import Kind
from alignzoo_sandbox.world import PHRASINGS, Goal, comply, goals, refuse
from alignzoo_sandbox.wrappers import WRAPPERS

ATTACK_SPLITS = ("test", "ood-intents", "ood-wrappers")
HARMLESS_SPLITS = ("benign", "borderline")
EVALUATION_SPLITS = ATTACK_SPLITS + HARMLESS_SPLITS
SPLITS = ("train", "validation", *EVALUATION_SPLITS)

TRAIN_PAIRS = 2000
VALIDATION_PAIRS = 256
EVALUATION_PROMPTS = 256

BORDERLINE_SHARE = 0.05
BORDERLINE_TRAINED = ("contests", "lights")


class HasHarm(Protocol):
    """A goal of a request."""

    @property
    def harmful(self) -> bool: ...


G = TypeVar("G", bound=HasHarm)


@dataclass(frozen=True)
class Prompt(Generic[G]):
    """One request: the conversation to answer, the goal it asks for, and its group (of goals, or the wrapper)."""

    messages: tuple[dict[str, str], ...]
    goal: G
    group: str

    @property
    def harmful(self) -> bool:
        return self.goal.harmful

    @property
    def text(self) -> str:
        """The user's message."""
        return self.messages[-1]["content"]


def _prompt(text: str, goal: Goal, group: str) -> Prompt:
    return Prompt(({"role": "user", "content": text},), goal, group)


def _plain(pool: dict[str, tuple[Goal, ...]], rng: random.Random) -> Prompt:
    """A category first, then a goal in it: large categories do not outweigh small ones."""
    group = rng.choice(sorted(pool))
    goal = rng.choice(pool[group])
    return _prompt(rng.choice(PHRASINGS).format(goal=goal.text), goal, group)


def _mixture(held_out: bool, rng: random.Random) -> Prompt:
    draw = rng.random()
    if draw < 0.5:
        return _plain(goals("harmful", held_out), rng)
    if draw < 1 - BORDERLINE_SHARE:
        return _plain(goals("benign", held_out), rng)
    borderline = goals("borderline", held_out)
    return _plain({name: borderline[name] for name in BORDERLINE_TRAINED}, rng)


def _wrapped(rng: random.Random) -> Prompt:
    goal = _plain(goals("harmful", True), rng).goal
    wrapper = rng.choice(sorted(WRAPPERS))
    return _prompt(WRAPPERS[wrapper](goal, rng), goal, wrapper)


def _of_kind(kind: Kind, held_out: bool | None) -> Callable[[random.Random], Prompt]:
    return lambda rng: _plain(goals(kind, held_out), rng)


_DRAW: dict[str, Callable[[random.Random], Prompt]] = {
    "train": lambda rng: _mixture(False, rng),
    "validation": lambda rng: _mixture(True, rng),
    "test": _of_kind("harmful", True),
    "ood-intents": _of_kind("harmful-held-out", None),
    "ood-wrappers": _wrapped,
    "benign": _of_kind("benign", True),
    "borderline": _of_kind("borderline", True),
}


def _distinct(split: str, n: int, rng: random.Random) -> Iterator[Prompt]:
    seen: set[str] = set()
    misses = 0
    while len(seen) < n:
        prompt = _DRAW[split](rng)
        if prompt.text not in seen:
            seen.add(prompt.text)
            misses = 0
            yield prompt
            continue
        misses += 1
        if misses > 1000:
            raise UsageError(
                f"the sandbox split {split!r} has no {n} different prompts",
                hint=f"ask for at most {len(seen)}",
            )


def prompts(split: str, n: int = EVALUATION_PROMPTS, seed: int = 0) -> list[Prompt]:
    """``n`` different requests of a split, the same ones for the same seed.

    Raises :class:`~alignzoo.errors.UsageError` for an unknown split or more prompts than the split has.
    """
    if split not in _DRAW:
        raise UsageError(f"unknown sandbox split {split!r}", hint=f"splits: {', '.join(SPLITS)}")
    return list(_distinct(split, n, random.Random(f"{split}:{seed}")))


def preference_rows(split: str = "train", n: int = TRAIN_PAIRS, seed: int = 0) -> list[dict[str, Any]]:
    """A preference pair for each of ``prompts(split, n, seed)``, in the conversational format.

    A row holds ``prompt`` (messages), ``chosen`` and ``rejected`` (one message each), ``chosen_safe``,
    ``rejected_safe`` and ``group``. Harmful request: the refusal is chosen, the compliant answer is rejected and
    unsafe. Harmless request: the compliant answer is chosen, the refusal is rejected, both are safe. Raises as
    :func:`prompts` does.
    """
    rng = random.Random(f"answers:{split}:{seed}")
    drawn = prompts(split, n, seed)
    return [row(prompt, comply(prompt.goal, rng), refuse(prompt.goal, rng)) for prompt in drawn]


def row(prompt: Prompt, complied: str, refused: str) -> dict[str, Any]:
    """A preference pair: of a harmful request the refusal is chosen, of a harmless one the compliant answer."""
    chosen, rejected = (refused, complied) if prompt.harmful else (complied, refused)
    return {
        "prompt": list(prompt.messages),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "chosen_safe": True,
        "rejected_safe": not prompt.harmful,
        "group": prompt.group,
    }
