"""Suites during training: figures of the model at its current weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignzoo.evaluate.asked import Asked
from alignzoo.evaluate.generating import journal_of, responses_to
from alignzoo.evaluate.verdicts.figures import figure_of
from alignzoo.evaluate.verdicts.judging import VERDICTS, ReadyJudge, judged
from alignzoo.generate.prompts import Prompting
from alignzoo.report import Reporter


def suite_figures(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Asked],
    judges: Sequence[tuple[ReadyJudge, Sequence[Asked]]],
    *,
    report: Reporter,
    system: str | None = None,
    batch_size: int | None = None,
    folder: Path | None = None,
) -> dict[str, float]:
    """Figures of a model in memory: ``suite/SUITE/attack_success`` or ``suite/SUITE/over_refusal`` under the first
    judge of the suite, ``…/JUDGE`` under each further one.

    The model is left in the mode it was in, and no random state changes.

    Args:
        model: unwrapped, with all weights on this process.
        asked: suites with their prompts, read before.
        judges: each with the suites it judges (:func:`~alignzoo.evaluate.verdicts.choosing.judges_of`), set up before
            (:func:`~alignzoo.evaluate.verdicts.judging.ready_judge`).
        system: a system prompt.
        batch_size: prompts at a time; None chooses it.
        folder: where responses and verdicts are written; what it has of these suites is replaced. None writes nothing.

    Raises:
        AlignzooError: a judge fails, or the folder cannot be written.
    """
    prompting = Prompting(tokenizer, system)
    found: dict[str, float] = {}
    for one in asked:
        journal = None if folder is None else journal_of(one, folder, "", {"prompting": prompting.described})
        if journal is not None:
            journal.remove()
        responses = responses_to(
            one, lambda: model, tokenizer, prompting, journal=journal, batch_size=batch_size, report=report
        )
        answers = [generated.answered for generated in responses]
        measures = one.suite.measures
        name = f"suite/{one.name}/{measures}"
        for judge in (judge for judge, suites in judges if one in suites):
            kept = None if folder is None else folder / VERDICTS / one.name / f"{judge.name}.jsonl"
            verdicts = judged(judge, answers, kept, report)
            figure = figure_of(one.name, measures, judge.name, judge.measures, responses, verdicts)
            found[f"{name}/{judge.name}" if name in found else name] = figure.rate.value
    return found
