"""Scores from the data's own columns.

    s(x, y) = sign · score

In pairs these are the columns ``chosen_score`` and ``rejected_score`` (or ``score_chosen`` and ``score_rejected``), in
unpaired rows and demonstrations ``score``, in ranked rows the list ``scores``; the unit is the data's.
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
    """The sign of the scores."""

    sign: Sign = Field(1, description="1 if higher is better, -1 for costs")


class Column(Reward):
    """The data's own scores."""

    options: ColumnOptions

    def scores(self, responses: Sequence[Response]) -> Sequence[float]:
        return [self.options.sign * _stated(response) for response in responses]


def _stated(response: Response) -> float:
    """The data's score.

    Raises:
        DataError: there is none.
    """
    if response.score is None:
        raise DataError(
            f"a response of row {response.row_id} has no score",
            hint="add a score for every response (docs/data.md lists the columns), or remove the row",
        )
    return response.score


CARD = RewardCard(
    name="column",
    target=f"{__name__}:Column",
    options=ColumnOptions,
    summary="Scores from the data's own columns",
    family="from the data",
    formula="s = sign · score",
    needs=frozenset({"scores"}),
    verified=(Verified(against="the data's columns", test="test_the_columns_of_the_data_are_the_scores"),),
)
