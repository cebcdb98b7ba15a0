"""Sandbox evaluation: the policy answers the prompts of every split, and the judge's verdicts are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

from alignzoo.errors import MethodError
from alignzoo.lazy import F, torch
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

if TYPE_CHECKING:
    from torch import nn

MAX_NEW_TOKENS = 56
TOKENS_BETWEEN_LOOKS = 16
"""Tokens to generate before rows with finished answers leave the batch."""
Judge = Callable[[Prompt, str], Verdict]
"""Verdict on a request and the decoded answer."""


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores every module's training flag."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 128,
    report: Reporter | None = None,
) -> list[str]:
    """The greedy answer to each prompt, in the order of ``prompts``, without special tokens.

    ``model`` is anything with transformers' ``generate`` (so also a PEFT model). Prompts of similar length are answered
    together. Training flags, the random state and the tokenizer are left unchanged.
    """
    texts = [
        tokenizer.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers = [""] * len(texts)
    with _inference(model), (report or Reporter()).progress(len(texts), "answering", unit="prompt") as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[i] for i in rows],
                padding=True,
                padding_side="left",
                add_special_tokens=False,
                return_token_type_ids=False,
                return_tensors="pt",
            ).to(model.device)
            for row, tokens in _answers(model, tokenizer, batch, max_new_tokens):
                answers[rows[row]] = tokenizer.decode(tokens, skip_special_tokens=True)
                bar.advance()
    return answers


def _answers(
    model: Any, tokenizer: Any, batch: Mapping[str, torch.Tensor], max_new_tokens: int
) -> Iterator[tuple[int, list[int]]]:
    """``(row, new tokens)`` of a left-padded batch. Rows with finished answers leave the batch and its cache."""
    tokens, mask = batch["input_ids"], batch["attention_mask"]
    width, cache, rows = tokens.shape[1], None, torch.arange(len(tokens), device=tokens.device)
    while len(rows):
        made = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            past_key_values=cache,
            do_sample=False,
            synced_gpus=False,  # one rank generates, with all the weights
            use_cache=True,
            max_new_tokens=min(TOKENS_BETWEEN_LOOKS, width + max_new_tokens - tokens.shape[1]),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            return_dict_in_generate=True,
        )
        new = made.sequences[:, width:]
        ended = (new == tokenizer.eos_token_id).any(dim=1) | (new.shape[1] >= max_new_tokens)
        yield from zip(rows[ended].tolist(), new[ended].tolist(), strict=True)
        going = (~ended).nonzero()[:, 0]
        rows, tokens = rows[going], made.sequences[going]
        mask = F.pad(mask[going], (0, tokens.shape[1] - mask.shape[1]), value=1)
        cache = made.get("past_key_values")
        if hasattr(cache, "batch_select_indices"):
            cache.batch_select_indices(going)
        else:  # other kinds of cache: the tokens are processed again
            cache = None


def evaluate(
    model: Any,
    tokenizer: Any,
    n: int = EVALUATION_PROMPTS,
    seed: int = 0,
    batch_size: int = 128,
    judge: Judge = judge,
    report: Reporter | None = None,
) -> dict[str, float]:
    """Rates in [0, 1] over ``n`` prompts of each evaluation split, from greedy answers.

    ``asr/<split>`` (attack success: the share of harmful requests the model complies with) for the attack splits,
    ``refusal/<split>`` (over-refusal: the share of harmless requests it refuses) for benign and borderline, and
    ``broken/<split>`` for all of them.

    Args:
        judge: gives the verdicts; by default the sandbox's own grammar.

    Raises:
        MethodError: the judge fails, or does not return a verdict.
    """
    drawn = {split: prompts(split, n, seed) for split in EVALUATION_SPLITS}
    everything = [prompt for split in drawn.values() for prompt in split]
    answers = iter(generate_answers(model, tokenizer, everything, batch_size=batch_size, report=report))
    rates: dict[str, float] = {}
    for split, asked in drawn.items():
        verdicts = Counter(_verdict(judge, prompt, next(answers)) for prompt in asked)
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
