"""Scores that the data brings.

    s(x, y) = sign · score

The columns are ``chosen_score`` and ``rejected_score`` (or ``score_chosen`` and ``score_rejected``), in whatever unit
the data has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from alignzoo.interfaces import Reward
from alignzoo.plugin import Card, Options, Verified

if TYPE_CHECKING:
    from alignzoo.reward.context import Response


class ColumnOptions(Options):
    """Which way is up."""

    sign: int = Field(1, ge=-1, le=1, description="1 where higher is better, -1 for costs")

    @field_validator("sign")
    @classmethod
    def _one_way_or_the_other(cls, sign: int) -> int:
        if sign == 0:
            raise ValueError("sign is 1 or -1")
        return sign


class Column(Reward):
    """The data's own scores."""

    options: ColumnOptions

    def scores(self, responses: Sequence[Response]) -> Sequence[float]:
        return [self.options.sign * response.score for response in responses if response.score is not None]


CARD = Card(
    kind="reward",
    name="column",
    target=f"{__name__}:Column",
    options=ColumnOptions,
    summary="Scores from the data: the columns chosen_score and rejected_score",
    formula="s = sign · score",
    needs=frozenset({"scores"}),
    verified=(Verified(against="the data's columns", test="test_the_columns_of_the_data_are_the_scores"),),
)
