"""How long the pairs are: as given, or from the data itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.errors import UsageError
from alignzoo.estimate.simulate import Lengths
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter

PROMPT, RESPONSE = 200, 150
"""Mean tokens of pairs by default."""
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Data:
    """Pair lengths of a run.

    Attributes:
        mean: the mean pair, in whole tokens.
        longest: the pair with the longest sequence, contained once in the heaviest padded micro-batch.
        most: the pair with the most tokens, counting its prompt once, likewise for packed micro-batches.
        source: ``given``, ``assumed`` or the data's name.
        pairs: training pairs; None if no data was read.
        percentiles: of a packed pair's tokens; empty if no data was read.
    """

    mean: Lengths
    longest: Lengths
    most: Lengths
    source: str
    pairs: int | None = None
    percentiles: tuple[tuple[int, int], ...] = ()

    def micro_batch(self, pairs: int, *, packed: bool) -> tuple[Lengths, ...]:
        """The heaviest micro-batch of this many pairs: the longest pair, and mean ones."""
        return (self.most if packed else self.longest, *[self.mean] * (pairs - 1))


def stated(settings: Settings, prompt: int | None, response: int | None, longest: int | None) -> Data:
    """From mean prompt and response lengths, and the longest prompt plus response, in tokens.

    Raises:
        UsageError: longer than a run allows, or the longest is shorter than the mean.
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
            hint="give the tokens of the longest prompt plus response",
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
                f"{flag}: {value} tokens are more than --max-length {settings.max_length}: "
                "a run truncates such responses",
                hint="raise --max-length",
            )


def of_data(settings: Settings, report: Reporter) -> Data:
    """From the training pairs of a run, tokenised and split as in a run.

    Raises:
        DataError: it cannot be read.
        ModelError: the model has no tokenizer.
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
