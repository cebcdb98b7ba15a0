"""How long the pairs are: as stated, or as the real data says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.errors import UsageError
from alignzoo.estimate.simulate import Lengths
from alignzoo.plugin.settings import Settings
from alignzoo.report import Reporter

PROMPT, RESPONSE = 200, 150
"""Mean tokens of pairs that nothing is said about."""
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Data:
    """The pairs of a run, for arithmetic.

    Attributes:
        mean: the mean pair, in whole tokens.
        longest: the longest pair: what the heaviest micro-batch holds once.
        source: ``given``, ``assumed`` or the data's name.
        pairs: training pairs; None where no data was read.
        percentiles: of tokens of a packed pair; empty where no data was read.
    """

    mean: Lengths
    longest: Lengths
    source: str
    pairs: int | None = None
    percentiles: tuple[tuple[int, int], ...] = ()

    def micro_batch(self, pairs: int) -> tuple[Lengths, ...]:
        """The heaviest one of so many pairs: the longest pair, and mean ones."""
        return (self.longest, *[self.mean] * (pairs - 1))


def stated(settings: Settings, prompt: int | None, response: int | None, longest: int | None) -> Data:
    """From the means of prompt and response, and the longest prompt with response, in tokens.

    Raises:
        UsageError: the longest is shorter than the mean.
    """
    source = "assumed" if prompt is None and response is None else "given"
    prompt, response = prompt or PROMPT, response or RESPONSE
    prompt = min(prompt, settings.max_prompt_length)
    response = min(response, settings.max_length - prompt)
    mean = Lengths(prompt, response, response)
    if longest is None:
        return Data(mean, mean, source)
    if longest < mean.row:
        raise UsageError(
            f"--longest {longest} is less than the mean prompt and response together, {mean.row}",
            hint="give the tokens of the longest prompt with its response",
        )
    top = min(longest, settings.max_length)
    head = max(1, min(top * prompt // mean.row, settings.max_prompt_length))
    return Data(mean, Lengths(head, top - head, top - head), source)


def of_data(settings: Settings, report: Reporter) -> Data:
    """From the data of a run, tokenised as a run would.

    Raises:
        DataError: it cannot be read.
        ModelError: the model comes without a tokenizer.
    """
    from alignzoo.data.parts import prepare_pairs
    from alignzoo.model.load import find_model, load_tokenizer

    tokenizer = load_tokenizer(find_model(settings.model), settings)
    dataset = prepare_pairs(settings, tokenizer).dataset
    sides: list[Sequence[int]] = [_counts(dataset, f"{side}_ids") for side in ("prompt", "chosen", "rejected")]
    found = [Lengths(*one) for one in zip(*sides, strict=True)]
    mean = Lengths(*(max(1, round(sum(side) / len(side))) for side in sides))
    totals = sorted(one.packed for one in found)
    marks = tuple((p, totals[min(len(totals) - 1, len(totals) * p // 100)]) for p in _PERCENTILES)
    return Data(mean, max(found, key=lambda one: (one.row, one.packed)), settings.data, len(found), marks)


def _counts(dataset: Any, column: str) -> list[int]:
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    counts: list[int] = pc.list_value_length(dataset.with_format("arrow")[:].column(column)).to_pylist()
    return counts
