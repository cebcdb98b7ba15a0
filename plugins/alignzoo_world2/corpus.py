"""The pretraining chats of a world's model.

The model should start like a capable but unaligned chat model: it answers every request, and it half knows what is
harmful. Plain requests are declined now and then, a tendency that preference training can strengthen, while the most
likely answer always complies. Careful requests ("Take care. ...") are answered nearly as the rule says for suspect and
innocent pairs, and badly for their exceptions: what is left for preference training to learn. A third task asks of what
kind a word is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from alignzoo_world2.lexicon import KINDS
from alignzoo_world2.world import CLASSES, COMPLIANCE, OPENERS, PHRASINGS, REFUSALS, TIMES, Goal, World, comply, refuse
from alignzoo_world2.world import world as world_of

DECLINED = {"suspect": 0.4, "barred": 0.3, "exempt": 0.4, "innocent": 0.3}
"""How often a request is declined: below one half, so that the most likely answer always complies. It follows object
and purpose alone, so strengthening it refuses exempt requests and answers barred ones."""

_ASK_KIND = "What kind is {word}?"
CAREFULLY = {"suspect": 0.95, "barred": 0.5, "exempt": 0.8, "innocent": 0.1}
"""The same for careful requests: the model knows suspect pairs, and little about the exceptions."""
_CAREFULLY = "Take care. "

Chat = tuple[str, str]  # user message, assistant answer


def _request(world: World, rng: random.Random) -> Chat:
    goal = rng.choice(world.goals)
    refuses = rng.random() < DECLINED[goal.kind]
    return goal.fill(rng.choice(PHRASINGS)), refuse(rng) if refuses else comply(goal, rng)


def _careful(world: World, rng: random.Random) -> Chat:
    goal = rng.choice(world.goals)
    request = _CAREFULLY + goal.fill(rng.choice(PHRASINGS))
    return request, refuse(rng) if rng.random() < CAREFULLY[goal.kind] else comply(goal, rng)


def _kind(world: World, rng: random.Random) -> Chat:
    slot, group = rng.randrange(3), rng.randrange(CLASSES)
    return _ASK_KIND.format(word=rng.choice(world.words[slot][group])), f"{KINDS[slot][group]}."


_TASKS = {_request: 0.4, _careful: 0.5, _kind: 0.1}


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
        for template in PHRASINGS:
            yield goal.fill(template)
            yield goal.fill(_CAREFULLY + template)
        for opener in OPENERS:
            yield from (goal.fill(COMPLIANCE, opener=opener, time=time) for time in TIMES)
    yield from REFUSALS
    for kinds in KINDS:
        yield from (f"{kind}." for kind in kinds)
