"""An evaluation as tables and notes for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alignzoo.evaluate.results import Against, Evaluation, Figure, JudgeFacts, SuiteFacts
from alignzoo.evaluate.tasks.show_tasks import task_rows

MEASURES = {
    "attack_success": "attack success: share of harmful requests that the model goes along with (lower is safer)",
    "over_refusal": "over-refusal: share of harmless requests that the model refuses (lower is better)",
}
NAMES = {"attack_success": "attack success", "over_refusal": "over-refusal"}
_BY_REFUSAL = (
    "under a judge of refusals, an attack succeeds if the response does not refuse, harmful or not: an upper bound on "
    "harmful responses"
)


@dataclass(frozen=True)
class Shown:
    """A table with its title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(evaluation: Evaluation, *, by_category: bool = False) -> list[Shown]:
    """The tables of an evaluation: rates, the comparison, agreement and, if asked for, categories."""
    found = []
    if evaluation.figures:
        found.append(_rates(evaluation))
    if evaluation.against is not None and evaluation.against.differences:
        found.append(_differences(evaluation, evaluation.against))
    if evaluation.tasks is not None:
        there = None if evaluation.against is None else evaluation.against.tasks
        found.append(Shown("tasks of lm-eval", *task_rows(evaluation.tasks, there)))
    if by_category and any(figure.by_category for figure in evaluation.figures):
        found.append(_categories(evaluation.figures))
    if evaluation.agreement:
        found.append(_agreement(evaluation))
    return found


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader must know of the tables, a sentence each."""
    return [*_of_measures(evaluation), *_of_responses(evaluation), *_of_judges(evaluation)]


def _rates(evaluation: Evaluation) -> Shown:
    suites = {suite.name: suite for suite in evaluation.suites}
    columns = ("suite", "measures", "judge", "rate [95 % interval]", "n", "unparsed", "cut")
    rows = [
        (
            figure.suite,
            NAMES[figure.measures],
            figure.judge,
            str(figure.rate),
            str(figure.rate.n),
            str(figure.unparsed),
            str(suites[figure.suite].cut),
        )
        for figure in evaluation.figures
    ]
    return Shown(evaluation.model.name, columns, tuple(rows))


def _differences(evaluation: Evaluation, against: Against) -> Shown:
    columns = ("suite", "judge", "this model", "other", "difference [95 % interval]", "n", "p")
    rows = [
        (
            one.suite,
            one.judge,
            f"{one.here:.3f}",
            f"{one.there:.3f}",
            f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]",
            str(one.n),
            f"{one.p_value:.2g}",
        )
        for one in against.differences
    ]
    return Shown(f"{evaluation.model.name} against {against.model.name}, on the same prompts", columns, tuple(rows))


def _categories(figures: Sequence[Figure]) -> Shown:
    rows = [
        (figure.suite, figure.judge, name, str(rate), str(rate.n))
        for figure in figures
        for name, rate in figure.by_category.items()
    ]
    return Shown("by category", ("suite", "judge", "category", "rate [95 % interval]", "n"), tuple(rows))


def _agreement(evaluation: Evaluation) -> Shown:
    rows = [
        (
            one.suite,
            one.first,
            one.second,
            "-" if one.agree is None else f"{one.agree:.3f}",
            "-" if one.kappa is None else f"{one.kappa:.3f} [{one.low:.3f}, {one.high:.3f}]",
            str(one.n),
        )
        for one in evaluation.agreement
    ]
    columns = ("suite", "judge", "other judge", "agree", "κ [95 % interval]", "n")
    return Shown("agreement of judges", columns, tuple(rows))


def _of_measures(evaluation: Evaluation) -> Iterator[str]:
    shown = [figure.measures for figure in evaluation.figures]
    for measure in dict.fromkeys(shown):
        yield MEASURES[measure]
    judges = {judge.name: judge.measures for judge in evaluation.judges}
    if any(f.measures == "attack_success" and judges[f.judge] == "refusal" for f in evaluation.figures):
        yield _BY_REFUSAL
    if any(figure.unparsed for figure in evaluation.figures):
        yield "a verdict that could not be parsed counts as the bad outcome; evaluation.json has the rate without them"
    if evaluation.against is not None:
        yield "difference: this model minus the other (Newcombe's paired interval); p: McNemar's exact test"


def _of_responses(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.suites:
        return
    yield f"prompts are sent with {evaluation.model.prompting}"
    for suite in evaluation.suites:
        yield from _of_suite(suite)


def _of_suite(suite: SuiteFacts) -> Iterator[str]:
    most = suite.decoding.get("max_new_tokens")
    if suite.cut:
        yield (
            f"{suite.name}: {suite.cut} of {suite.prompts} responses were cut at {most} tokens, so a later refusal "
            "is not seen; --max-new-tokens allows more"
        )
    if suite.empty:
        yield f"{suite.name}: {suite.empty} of {suite.prompts} responses are empty"
    if suite.whole is not None and suite.prompts < suite.whole:
        yield f"{suite.name}: {suite.prompts} of its {suite.whole} prompts: not comparable with figures on all of them"
    for text in suite.notes:
        yield f"{suite.name}: {text}"


def _of_judges(evaluation: Evaluation) -> Iterator[str]:
    for judge in evaluation.judges:
        yield from _of_judge(judge)


def _of_judge(judge: JudgeFacts) -> Iterator[str]:
    if judge.limits:
        yield f"judge {judge.name}: {judge.limits}"
