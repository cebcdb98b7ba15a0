"""How long the rows are: as given, or from the data itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import list_lengths, nested_lengths
from alignzoo.data.mismatch import places
from alignzoo.errors import UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter
from alignzoo_estimate.micro_batch import Lengths

if TYPE_CHECKING:
    from datasets import Dataset

PROMPT, RESPONSE = 200, 150
"""Mean tokens by default; the rows are then pairs."""
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Data:
    """Row lengths of a run, including mismatched responses.

    Attributes:
        mean: the mean row, in whole tokens.
        longest: the row with the longest sequence, contained once in the heaviest padded micro-batch.
        most: the row with the most tokens, counting its prompt once, likewise for packed micro-batches.
        source: ``given``, ``assumed`` or the data's name.
        rows: training rows; None if no data was read.
        percentiles: of a packed row's tokens; empty if no data was read.
    """

    mean: Lengths
    longest: Lengths
    most: Lengths
    source: str
    rows: int | None = None
    percentiles: tuple[tuple[int, int], ...] = ()

    def micro_batch(self, rows: int, *, packed: bool) -> tuple[Lengths, ...]:
        """The heaviest micro-batch of this many rows: the longest row, and mean ones."""
        return (self.most if packed else self.longest, *[self.mean] * (rows - 1))


def stated(plan: Plan, prompt: int | None, response: int | None, longest: int | None) -> Data:
    """From mean prompt and response lengths, and the longest prompt plus response, in tokens; the rows are pairs, each
    with two mismatched responses if a method of the plan needs them.

    Raises:
        UsageError: longer than a run allows, or the longest is shorter than the mean.
    """
    given = sum(value is not None for value in (prompt, response))
    source = ("assumed", "partly assumed", "given")[given]
    settings, count = plan.settings, 4 if "mismatched" in plan.needs else 2
    _check_limits(settings, prompt, response, longest)
    prompt = prompt or min(PROMPT, settings.max_prompt_length)
    response = response or min(RESPONSE, settings.max_length - prompt)
    mean = Lengths(prompt, (response,) * count)
    if longest is None:
        return Data(mean, mean, mean, source)
    if longest < mean.longest:
        raise UsageError(
            f"--longest {longest} is less than the mean prompt and response together, {mean.longest}",
            hint="give the tokens of the longest prompt plus response",
        )
    head = max(1, min(longest * prompt // mean.longest, settings.max_prompt_length))
    top = Lengths(head, (longest - head,) * count)
    return Data(mean, top, top, source)


def _check_limits(settings: Settings, prompt: int | None, response: int | None, longest: int | None) -> None:
    if prompt is not None and prompt > settings.max_prompt_length:
        raise UsageError(
            f"--prompt-tokens {prompt} is more than --max-prompt-length {settings.max_prompt_length}: "
            "a run drops such rows",
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


def of_data(plan: Plan, report: Reporter) -> Data:
    """From the training rows of a run, tokenised and split as in a run.

    Raises:
        DataError: it cannot be read.
        ModelError: the model has no tokenizer.
    """
    from alignzoo.data.parts import load_parts
    from alignzoo.model.load import load_tokenizer
    from alignzoo.model.source import find_model

    settings = plan.settings
    tokenizer = load_tokenizer(find_model(settings.model), settings)
    parts = load_parts(settings, tokenizer, needs=plan.needs & {"mismatched"}, report=report)
    rows = _rows(parts.train, parts.partners.get("train"))
    totals = sorted(row.packed for row in rows)
    marks = tuple((p, totals[min(len(totals) - 1, len(totals) * p // 100)]) for p in _PERCENTILES)
    longest, most = max(rows, key=lambda row: row.longest), max(rows, key=lambda row: row.packed)
    return Data(_mean(rows), longest, most, settings.data, len(rows), marks)


def _rows(dataset: Dataset, partners: np.ndarray | None) -> list[Lengths]:
    """The rows of a dataset, each with its own responses followed by the mismatched ones."""
    prompts = list_lengths(dataset, "prompt_ids").tolist()
    counts, tokens = nested_lengths(dataset, "response_ids")
    ends = np.cumsum(counts)[:-1]
    responses = [part.tolist() for part in np.split(tokens, ends)]
    if partners is not None:
        others = np.split(tokens[places(counts, partners)], ends)
        responses = [[*own, *more.tolist()] for own, more in zip(responses, others, strict=True)]
    return [Lengths(prompt, tuple(sizes)) for prompt, sizes in zip(prompts, responses, strict=True)]


def _mean(rows: Sequence[Lengths]) -> Lengths:
    """The mean row: if all rows have the same number of responses, the mean of each; otherwise, equal responses that
    preserve the total tokens."""
    prompt = max(1, round(sum(row.prompt for row in rows) / len(rows)))
    counts = [len(row.responses) for row in rows]
    if len(set(counts)) == 1:
        columns = zip(*(row.responses for row in rows), strict=True)
        return Lengths(prompt, tuple(max(1, round(sum(column) / len(rows))) for column in columns))
    count = max(1, round(sum(counts) / len(rows)))
    return Lengths(prompt, (max(1, round(sum(row.response for row in rows) / len(rows) / count)),) * count)
