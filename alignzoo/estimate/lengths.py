"""How long the pairs are: as stated, or as the real data says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.errors import UsageError
from alignzoo.estimate.simulate import Lengths
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter

PROMPT, RESPONSE = 200, 150
"""Mean tokens of pairs that nothing is said about."""
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Data:
    """The pairs of a run, for arithmetic.

    Attributes:
        mean: the mean pair, in whole tokens.
        longest: the pair with the longest sequence: what the heaviest padded micro-batch holds once.
        most: the pair with the most tokens, its prompt counted once: the same for a packed one.
        source: ``given``, ``assumed`` or the data's name.
        pairs: training pairs; None where no data was read.
        percentiles: of tokens of a packed pair; empty where no data was read.
    """

    mean: Lengths
    longest: Lengths
    most: Lengths
    source: str
    pairs: int | None = None
    percentiles: tuple[tuple[int, int], ...] = ()

    def micro_batch(self, pairs: int, *, packed: bool) -> tuple[Lengths, ...]:
        """The heaviest one of so many pairs: the longest pair, and mean ones."""
        return (self.most if packed else self.longest, *[self.mean] * (pairs - 1))


def stated(settings: Settings, prompt: int | None, response: int | None, longest: int | None) -> Data:
    """From the means of prompt and response, and the longest prompt with response, in tokens.

    Raises:
        UsageError: longer than a run takes or cuts, or the longest is shorter than the mean.
    """
    told = sum(value is not None for value in (prompt, response))
    source = ("assumed", "partly assumed", "given")[told]
    _check_limits(settings, prompt, response, longest)
    prompt = prompt or min(PROMPT, settings.max_prompt_length)
    response = response or min(RESPONSE, settings.max_length - prompt)
    mean = Lengths(prompt, response, response)
    if longest is None:
        return Data(mean, mean, mean, source)
    if longest < mean.row:
        raise UsageError(
            f"--longest {longest} is less than the mean prompt and response together, {mean.row}",
            hint="give the tokens of the longest prompt with its response",
        )
    head = max(1, min(longest * prompt // mean.row, settings.max_prompt_length))
    top = Lengths(head, longest - head, longest - head)
    return Data(mean, top, top, source)


def _check_limits(settings: Settings, prompt: int | None, response: int | None, longest: int | None) -> None:
    if prompt is not None and prompt > settings.max_prompt_length:
        raise UsageError(
            f"--prompt-tokens {prompt} is more than --max-prompt-length {settings.max_prompt_length}: "
            "a run drops such pairs",
            hint="raise --max-prompt-length (and --max-length)",
        )
    for flag, value in (
        ("--longest", longest),
        ("--prompt-tokens and --response-tokens", (prompt or 0) + (response or 0)),
    ):
        if value is not None and value > settings.max_length:
            raise UsageError(
                f"{flag}: {value} tokens are more than --max-length {settings.max_length}: a run cuts such responses",
                hint="raise --max-length",
            )


def of_data(settings: Settings, report: Reporter) -> Data:
    """From the training pairs of a run, tokenised and divided as a run would.

    Raises:
        DataError: it cannot be read.
        ModelError: the model comes without a tokenizer.
    """
    from alignzoo.data.parts import load_parts
    from alignzoo.model.load import find_model, load_tokenizer

    tokenizer = load_tokenizer(find_model(settings.model), settings)
    dataset = load_parts(settings, tokenizer, needs=(), report=report).train
    sides: list[Sequence[int]] = [_counts(dataset, f"{side}_ids") for side in ("prompt", "chosen", "rejected")]
    found = [Lengths(*one) for one in zip(*sides, strict=True)]
    mean = Lengths(*(max(1, round(sum(side) / len(side))) for side in sides))
    totals = sorted(one.packed for one in found)
    marks = tuple((p, totals[min(len(totals) - 1, len(totals) * p // 100)]) for p in _PERCENTILES)
    longest, most = max(found, key=lambda one: one.row), max(found, key=lambda one: one.packed)
    return Data(mean, longest, most, settings.data, len(found), marks)


def _counts(dataset: Any, column: str) -> list[int]:
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    counts: list[int] = pc.list_value_length(dataset.with_format("arrow")[:].column(column)).to_pylist()
    return counts
