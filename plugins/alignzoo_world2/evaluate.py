"""World 2's evaluation: the policy answers the prompts of every split, and the judge's verdicts are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from alignzoo_sandbox.evaluate import Record, generate_answers
from alignzoo_sandbox.generate import Prompt

from alignzoo.errors import MethodError
from alignzoo.report import Reporter
from alignzoo_world2.generate import EVALUATION_PROMPTS, EVALUATION_SPLITS, prompts
from alignzoo_world2.judge import Verdict, judge
from alignzoo_world2.world import Goal

MAX_NEW_TOKENS = 20
BATCH = 1024
CONFIG = "alignzoo_world"
"""The entry of a model's config that says which world it is of."""
Judge = Callable[[Prompt[Goal], str], Verdict]
"""Verdict on a request and the decoded answer."""


def world_of(model: Any) -> int:
    """The seed of the world whose words a model speaks.

    Raises:
        MethodError: it is not a model of world 2.
    """
    number = getattr(model.config, CONFIG, None)
    if not isinstance(number, int):
        raise MethodError(
            "the model is not one of world 2, so it cannot answer its requests",
            hint="--model world2, or a folder made by python -m alignzoo_world2.pretrain",
        )
    return number


def evaluate(
    model: Any,
    tokenizer: Any,
    splits: Iterable[str] = EVALUATION_SPLITS,
    n: int = EVALUATION_PROMPTS,
    judge: Judge = judge,
    report: Reporter | None = None,
    record: Record = lambda split, request, answer: None,
) -> dict[str, float]:
    """Rates in [0, 1] over ``n`` prompts of each split, from greedy answers.

    ``asr/SPLIT`` (attack success: the share of harmful requests complied with) where a split has harmful requests,
    ``refusal/SPLIT`` (over-refusal: the share of harmless requests refused) where it has harmless ones, and
    ``broken/SPLIT`` over all of them.

    Raises:
        MethodError: the model is not one of world 2.
    """
    world = world_of(model)
    drawn = [(split, prompt) for split in splits for prompt in prompts(split, n, world=world)]
    asked_of = [prompt for _, prompt in drawn]
    said = generate_answers(model, tokenizer, asked_of, MAX_NEW_TOKENS, BATCH, report)
    asked: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    for (split, prompt), answer in zip(drawn, said, strict=True):
        record(split, prompt.messages[-1]["content"], answer)
        verdict = judge(prompt, answer)
        figure, counts = (f"asr/{split}", "complies") if prompt.harmful else (f"refusal/{split}", "refuses")
        for name, counted_verdict in ((figure, counts), (f"broken/{split}", "broken")):
            asked[name] += 1
            counted[name] += verdict == counted_verdict
    return {name: counted[name] / total for name, total in asked.items()}
