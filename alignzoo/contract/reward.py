"""Rewards: scores of responses, from outside of the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from alignzoo.contract.card import Card, Need
from alignzoo.contract.method import Method
from alignzoo.contract.scoring import Response, RewardContext


class RewardCard(Card):
    """The facts of a reward."""

    kind: Literal["reward"] = "reward"


def default(cards: Mapping[str, Sequence[Card]], needs: frozenset[Need]) -> tuple[str, ...]:
    """The reward of a run that names none: the data's columns where a method asks for scores, else the safety probe;
    none where no method reads any."""
    if "scores" in needs:
        return ("alignzoo:column",)
    return ("alignzoo:probe",) if "reward" in needs else ()


class Reward(Method):
    """A score for every response, from outside of the objective; released before training starts."""

    def setup(self, run: RewardContext) -> None:
        """Called once, on every rank, before anything is scored; load what is heavy in :meth:`scores`."""

    def identity(self) -> str:
        """What the scores depend on beyond the options that are no paths, and beyond the responses: a hash of weights
        that are read, say. Equal identities mean equal scores, which are then taken from an earlier run."""
        return ""

    def scores(self, responses: Sequence[Response]) -> Sequence[float]:
        """One finite number per response, higher is better; that of a response does not depend on the others.

        Called on every rank, with some of the responses of its share at a time.
        """
        raise NotImplementedError
