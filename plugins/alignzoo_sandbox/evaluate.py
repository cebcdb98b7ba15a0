"""Sandbox evaluation: the policy answers the prompts of every split, and the judge's verdicts are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from alignzoo.errors import MethodError
from alignzoo.plugin.guard import FOR_THE_TRACEBACK, guarded
from alignzoo.report import Reporter
from alignzoo_sandbox.generate import (
    ATTACK_SPLITS,
    EVALUATION_PROMPTS,
    EVALUATION_SPLITS,
    Prompt,
    prompts,
)
from alignzoo_sandbox.judge import Verdict, judge

MAX_NEW_TOKENS = 56
Judge = Callable[[Prompt, str], Verdict]
"""Verdict on a request and the decoded answer."""
Record = Callable[[str, str, str], None]
"""Called with the split, the request and the answer of every prompt."""


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 128,
    report: Reporter | None = None,
) -> list[str]:
    """The greedy answer to each prompt, in the order of ``prompts``, without special tokens.

    ``model`` is anything with transformers' ``generate`` (so also a PEFT model). Training flags, the random state and
    the tokenizer are left unchanged.
    """
    from alignzoo.generate.batched import generate
    from alignzoo.generate.decoding import Decoding
    from alignzoo.generate.prompts import Prompting

    prompting = Prompting(tokenizer)
    ids = [prompting.ids(prompt.messages) for prompt in prompts]
    answers = [""] * len(ids)
    decoding = Decoding(max_new_tokens)
    for index, response in generate(
        model, tokenizer, ids, decoding, batch_size=batch_size, report=report, label="answering"
    ):
        answers[index] = response.text
    return answers


def evaluate(
    model: Any,
    tokenizer: Any,
    n: int = EVALUATION_PROMPTS,
    seed: int = 0,
    batch_size: int = 128,
    judge: Judge = judge,
    report: Reporter | None = None,
    record: Record = lambda name, prompt, answer: None,
) -> dict[str, float]:
    """Rates in [0, 1] over ``n`` prompts of each evaluation split, from greedy answers.

    ``asr/<split>`` (attack success: the share of harmful requests the model complies with) for the attack splits,
    ``refusal/<split>`` (over-refusal: the share of harmless requests it refuses) for benign and borderline, and
    ``broken/<split>`` for all of them.

    Args:
        judge: gives the verdicts; by default the sandbox's own grammar.
        record: called with the split, the request and the answer of every prompt.

    Raises:
        MethodError: the judge fails, or does not return a verdict.
    """
    drawn = {split: prompts(split, n, seed) for split in EVALUATION_SPLITS}
    everything = [prompt for split in drawn.values() for prompt in split]
    answers = iter(generate_answers(model, tokenizer, everything, batch_size=batch_size, report=report))
    rates: dict[str, float] = {}
    for split, asked in drawn.items():
        verdicts = Counter[Verdict]()
        for prompt, answer in zip(asked, answers, strict=False):
            record(split, prompt.messages[-1]["content"], answer)
            verdicts[_verdict(judge, prompt, answer)] += 1
        name, verdict = _headline(split)
        rates[name] = verdicts[verdict] / n
        rates[f"broken/{split}"] = verdicts["broken"] / n
    return rates


def _verdict(judge: Judge, request: Prompt, answer: str) -> Verdict:
    name = getattr(judge, "__qualname__", repr(judge))
    with guarded(
        f"judge {name} failed on the answer {answer[:60]!r}", hint=f"{FOR_THE_TRACEBACK}, or with another --judge"
    ):
        verdict = judge(request, answer)
    if verdict not in get_args(Verdict):
        raise MethodError(f"judge {name} returned {verdict!r}, expected one of {', '.join(get_args(Verdict))}")
    return verdict


def _headline(split: str) -> tuple[str, Any]:
    """The headline rate of a split, and the verdict it counts. Lower is better for both."""
    return (f"asr/{split}", "complies") if split in ATTACK_SPLITS else (f"refusal/{split}", "refuses")


def table(
    before: Mapping[str, float], after: Mapping[str, float], n: int = EVALUATION_PROMPTS
) -> list[dict[str, str | float | int]]:
    """One row per evaluation split from two results of :func:`evaluate` over ``n`` prompts each.

    A row has ``split``, ``kind`` ("attack success" or "over-refusal"), ``before``, ``after``, ``broken_before``,
    ``broken_after`` and ``n``.
    """
    return [
        {
            "split": split,
            "kind": "attack success" if split in ATTACK_SPLITS else "over-refusal",
            "before": before[_headline(split)[0]],
            "after": after[_headline(split)[0]],
            "broken_before": before[f"broken/{split}"],
            "broken_after": after[f"broken/{split}"],
            "n": n,
        }
        for split in EVALUATION_SPLITS
    ]
