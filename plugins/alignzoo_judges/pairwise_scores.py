"""Which of two responses is better, by a number that each has by itself: a reward model's score, or its length.

The order of presentation does not matter to these judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignzoo_rewards.hf import HF, HFOptions
from pydantic import Field

from alignzoo.base.stored import value_digest
from alignzoo.contract.card import Options
from alignzoo.contract.judge import Answered, Judge, JudgeCard, JudgeContext, Preference
from alignzoo.contract.paper import Verified

_PAIRS_AT_ONCE = 64


class RewardJudgeOptions(HFOptions):
    """The reward model, and what counts as a tie."""

    margin: float = Field(0.0, ge=0, description="scores at most this far apart tie")


class RewardJudge(Judge):
    """The higher score of a reward model; it is read as by ``--reward hf``."""

    options: RewardJudgeOptions

    def setup(self, ctx: JudgeContext) -> None:
        """Load the model.

        Raises:
            ModelError: there is none, or it is not a classifier with one output.
        """
        from alignzoo.interfaces import RewardContext

        self._model = HF(HFOptions(**self.options.model_dump(exclude={"margin"})))
        self._model.setup(
            RewardContext(
                model=None,
                weights="",
                device=ctx.device,
                seed=0,
                report=ctx.report,
                probe=_no_probe,
                trust_remote_code=ctx.trust_remote_code,
            )
        )
        self._known: dict[str, float] = {}

    def identity(self) -> str:
        return self._model.identity()

    def prefer(self, firsts: Sequence[Answered], seconds: Sequence[Answered]) -> Iterator[Preference]:
        for start in range(0, len(firsts), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            scores = self._scores([*firsts[part], *seconds[part]])
            half = len(scores) // 2
            for one, other in zip(scores[:half], scores[half:], strict=True):
                yield by_score(one, other, self.options.margin)

    def close(self) -> None:
        vars(self).pop("_model", None)

    def _scores(self, answers: Sequence[Answered]) -> list[float]:
        """One score per response; each is computed once, so that both orders see the same."""
        from alignzoo.interfaces import Response

        keys = [
            value_digest([[dict(one) for one in answer.messages], answer.request, answer.response])
            for answer in answers
        ]
        new = {key: answer for key, answer in zip(keys, answers, strict=True) if key not in self._known}
        responses = [
            Response(
                row_id=row,
                prompt=[dict(one) for one in answer.messages] or [{"role": "user", "content": answer.request}],
                reply=[{"role": "assistant", "content": answer.response}],
                ids=(),
            )
            for row, answer in enumerate(new.values())
        ]
        if responses:
            self._known |= zip(new, self._model.scores(responses), strict=True)
        return [self._known[key] for key in keys]


class Longer(Judge):
    """The longer response, in characters."""

    def prefer(self, firsts: Sequence[Answered], seconds: Sequence[Answered]) -> Iterator[Preference]:
        for first, second in zip(firsts, seconds, strict=True):
            yield by_score(len(first.response), len(second.response), 0)


def by_score(first: float, second: float, margin: float) -> Preference:
    """The higher of two scores; a tie if they are at most ``margin`` apart."""
    raw = f"{first:g} : {second:g}"
    if abs(first - second) <= margin:
        return Preference("tie", raw)
    return Preference("first" if first > second else "second", raw)


def _no_probe(_folder: str | None) -> None:
    raise NotImplementedError("a judge has no safety probe")


CARD = JudgeCard(
    name="reward",
    target=f"{__name__}:RewardJudge",
    options=RewardJudgeOptions,
    summary="The higher score of a reward model, a classifier with one output",
    family="preferences",
    measures="preference",
    verified=(
        Verified(
            against="a model with known scores", test="test_the_reward_judge_prefers_the_higher_score_in_any_order"
        ),
    ),
    limits="inherits the reward model's own biases, often for length",
)
LONGER_CARD = JudgeCard(
    name="longer",
    target=f"{__name__}:Longer",
    options=Options,
    summary="The longer response: a baseline that shows what length alone decides",
    family="preferences",
    measures="preference",
    verified=(Verified(against="a hand-counted table", test="test_the_table_and_its_json"),),
    limits="a baseline: says nothing about quality",
)
