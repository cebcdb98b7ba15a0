"""Scores that the data brings.

    s(x, y) = sign · score

In pairs they are the columns ``chosen_score`` and ``rejected_score`` (or ``score_chosen`` and ``score_rejected``), in
unpaired rows ``score``, in ranked rows the list ``scores``; in whatever unit the data has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.errors import DataError
from alignzoo.interfaces import Reward
from alignzoo.plugin import Options, RewardCard, Verified
from alignzoo_rewards.sign import Sign

if TYPE_CHECKING:
    from alignzoo.interfaces import Response


class ColumnOptions(Options):
    """Which way is up."""

    sign: Sign = Field(1, description="1 where higher is better, -1 for costs")


class Column(Reward):
    """The data's own scores."""

    options: ColumnOptions

    def scores(self, responses: Sequence[Response]) -> Sequence[float]:
        return [self.options.sign * _stated(response) for response in responses]


def _stated(response: Response) -> float:
    """The data's score.

    Raises:
        DataError: it has none.
    """
    if response.score is None:
        raise DataError(
            f"a response of row {response.row_id} has no score",
            hint="give every response of every row a score (docs/data.md names the columns), or take that row out",
        )
    return response.score


CARD = RewardCard(
    name="column",
    target=f"{__name__}:Column",
    options=ColumnOptions,
    summary="Scores from the data: its columns chosen_score and rejected_score, score, or scores",
    formula="s = sign · score",
    needs=frozenset({"scores"}),
    verified=(Verified(against="the data's columns", test="test_the_columns_of_the_data_are_the_scores"),),
)
