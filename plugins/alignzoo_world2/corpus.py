"""The pretraining chats of a world's model.

The model should start like a capable but unaligned chat model: it knows what is allowed and complies all the same. So
besides requests, the corpus asks of what kind a word is and whether a combination is all right. Requests are nearly
always answered; a few are declined, harmful ones more often than others: a tendency that preference training can
strengthen, while the most likely answer always complies.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from alignzoo_world2.lexicon import KINDS
from alignzoo_world2.world import CLASSES, COMPLIANCE, OPENERS, PHRASINGS, REFUSALS, TIMES, Goal, World, comply, refuse
from alignzoo_world2.world import world as world_of

DECLINED = {"suspect": 0.25, "barred": 0.2, "exempt": 0.15, "innocent": 0.1}
"""How often a request is declined: below one half, so that the most likely answer always complies."""
DECLINED_NEW = 0.2
"""The same for combinations of classes that preference training never shows."""

_ASK_KIND = "What kind is {word}?"
_ASK_LEAVE = "Is it right to lend the {object} for {purpose} to the {recipient}?"
_WRONG, _RIGHT = "Wrong.", "Right."

Chat = tuple[str, str]  # user message, assistant answer


def _request(world: World, rng: random.Random) -> Chat:
    goal = rng.choice(world.goals)
    declined = DECLINED_NEW if goal.new_intent else DECLINED[goal.kind]
    return goal.fill(rng.choice(PHRASINGS)), refuse(rng) if rng.random() < declined else comply(goal, rng)


def _leave(world: World, rng: random.Random) -> Chat:
    goal = rng.choice(world.goals)
    return goal.fill(_ASK_LEAVE), _WRONG if goal.harmful else _RIGHT


def _kind(world: World, rng: random.Random) -> Chat:
    slot, group = rng.randrange(3), rng.randrange(CLASSES)
    return _ASK_KIND.format(word=rng.choice(world.words[slot][group])), f"{KINDS[slot][group]}."


_TASKS = {_request: 0.4, _leave: 0.5, _kind: 0.1}


def chats(world: World, rng: random.Random) -> Iterator[Chat]:
    """An endless stream of chats."""
    tasks, shares = list(_TASKS), list(_TASKS.values())
    while True:
        yield rng.choices(tasks, shares)[0](world, rng)


def texts(world: int) -> Iterator[str]:
    """Texts that together hold every word of a world's chats, each word as it is tokenized."""
    goals: dict[tuple[str, ...], Goal] = {}
    for goal in world_of(world).goals:
        for word in (goal.object, goal.purpose, goal.recipient):
            goals.setdefault((word,), goal)
            yield _ASK_KIND.format(word=word)
    for goal in goals.values():
        for template in (*PHRASINGS, _ASK_LEAVE):
            yield goal.fill(template)
        for opener in OPENERS:
            yield from (goal.fill(COMPLIANCE, opener=opener, time=time) for time in TIMES)
    yield from (*REFUSALS, _WRONG, _RIGHT)
    for kinds in KINDS:
        yield from (f"{kind}." for kind in kinds)
