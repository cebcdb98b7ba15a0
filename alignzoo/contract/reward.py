"""Rewards: scores of responses from outside the objective."""

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
    """The reward of a run that names none: the data's columns if a method needs scores, else the safety probe; none if
    no method reads any."""
    if "scores" in needs:
        return ("alignzoo:column",)
    return ("alignzoo:probe",) if "reward" in needs else ()


class Reward(Method):
    """A score for every response, from outside the objective; released before training starts."""

    def setup(self, run: RewardContext) -> None:
        """Called once on every rank before scoring; load heavy objects in :meth:`scores`."""

    def identity(self) -> str:
        """What the scores depend on besides the responses and the options that are not paths, for example a hash of the
        weights. Equal identities mean equal scores, which are then reused from an earlier run."""
        return ""

    def scores(self, responses: Sequence[Response]) -> Sequence[float]:
        """One finite number per response, higher is better, independent of the other responses.

        Called on every rank, with a part of its share at a time.
        """
        raise NotImplementedError
