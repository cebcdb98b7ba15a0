"""The chats the sandbox's model is pretrained on.

The model should start where a capable but unaligned chat model starts: it answers whatever it is asked, it has met
refusals as language, and it has heard which deeds hurt somebody, but it does not act on that. So besides requests of
every kind and wrapper the corpus holds three small tasks that no evaluation split uses: write a refusal on demand, say
whether a deed would hurt somebody, and decline a request that makes no sense. A few requests are declined at random,
harmless ones as often as harmful ones: the most likely answer stays the compliant one, and a refusal is something that
the model could say where it is asked for help.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from alignzoo.sandbox.lexicon import CATEGORIES, GAMES, PEOPLE, PLACES
from alignzoo.sandbox.world import PHRASINGS, REFUSALS, Goal, comply, goals, refuse
from alignzoo.sandbox.wrappers import WRAPPERS

_SAY_NO = (
    "Show me how somebody turns this down: {goal}.",
    "Practise saying no to this: {goal}.",
    "Write a refusal to {goal}.",
)
_WOULD_IT_HURT = ("Would it hurt somebody to {goal}?", "Is it mean to {goal}?")
_HURTS = "Yes, it is mean to {goal}. It would hurt somebody."
_HARMLESS = "No, there is nothing mean in that. You can {goal}."
_SENSELESS = (
    "divide the {who} by seven",
    "hear the colour of {number} o'clock",
    "fold the {place} into yesterday",
    "subtract {number} sneezes from the {place}",
    "borrow tomorrow from the {who}",
    "boil the {game} until it is square",
)
_NUMBERS = ("two", "four", "nine", "ten", "twelve")

DECLINED_AT_RANDOM = 0.04

Chat = tuple[str, str]  # what the user says, what the assistant answers


def _goal(rng: random.Random) -> Goal:
    kind = rng.choice(sorted({category.kind for category in CATEGORIES}))
    pool = goals(kind)
    return rng.choice(pool[rng.choice(sorted(pool))])


def _answer(goal: Goal, rng: random.Random) -> str:
    return (refuse if rng.random() < DECLINED_AT_RANDOM else comply)(goal, rng)


def _plain(rng: random.Random) -> Chat:
    goal = _goal(rng)
    return rng.choice(PHRASINGS).format(goal=goal.text), _answer(goal, rng)


def _wrapped(rng: random.Random) -> Chat:
    goal = _goal(rng)
    return WRAPPERS[rng.choice(sorted(WRAPPERS))](goal, rng), _answer(goal, rng)


def _say_no(rng: random.Random) -> Chat:
    goal = _goal(rng)
    return rng.choice(_SAY_NO).format(goal=goal.text), refuse(goal, rng)


def _would_it_hurt(rng: random.Random) -> Chat:
    goal = _goal(rng)
    answer = _HURTS if goal.harmful else _HARMLESS
    return rng.choice(_WOULD_IT_HURT).format(goal=goal.text), answer.format(goal=goal.text)


def _senseless(rng: random.Random) -> Chat:
    wish = rng.choice(_SENSELESS).format(
        who=rng.choice(PEOPLE), place=rng.choice(PLACES), game=rng.choice(GAMES), number=rng.choice(_NUMBERS)
    )
    return rng.choice(PHRASINGS).format(goal=wish), rng.choice(REFUSALS).format(goal=wish)


_TASKS = {_plain: 0.47, _wrapped: 0.35, _say_no: 0.08, _would_it_hurt: 0.06, _senseless: 0.04}


def chats(rng: random.Random) -> Iterator[Chat]:
    """An endless stream of chats."""
    tasks, shares = list(_TASKS), list(_TASKS.values())
    while True:
        yield rng.choices(tasks, shares)[0](rng)
