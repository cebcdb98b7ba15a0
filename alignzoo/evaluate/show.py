"""An evaluation as tables and notes for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alignzoo.evaluate.results import Against, Evaluation, Figure, SuiteFacts
from alignzoo.evaluate.tasks.task_results import TASK_COLUMNS, task_rows
from alignzoo.evaluate.tasks.tax import COLUMNS, AlignmentTax, tax_rows
from alignzoo.evaluate.verdicts.statistics import shown

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
    if evaluation.against is not None and evaluation.against.tax is not None:
        found.append(_tax(evaluation.model.name, evaluation.against.model.name, evaluation.against.tax))
    elif evaluation.tasks is not None:
        rows = tuple(map(tuple, task_rows(evaluation.tasks)))
        found.append(Shown(f"{evaluation.model.name} on lm-eval tasks", TASK_COLUMNS, rows))
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
            shown(one.value, one.low, one.high, signed=True),
            str(one.n),
            f"{one.p_value:.2g}",
        )
        for one in against.differences
    ]
    return Shown(f"{evaluation.model.name} against {against.model.name}, on the same prompts", columns, tuple(rows))


def _tax(model: str, base: str, tax: AlignmentTax) -> Shown:
    return Shown(f"{model} against {base} as base, on lm-eval tasks", COLUMNS, tuple(map(tuple, tax_rows(tax))))


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
            "-" if one.kappa is None or one.low is None or one.high is None else shown(one.kappa, one.low, one.high),
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
    against = evaluation.against
    if against is not None and against.differences:
        yield "difference: this model minus the other (Newcombe's paired interval); p: McNemar's exact test"
    if against is not None and against.tax is not None:
        yield "difference on tasks: model minus base (paired bootstrap over documents)"
        if against.tax.tax is not None:
            yield f"alignment tax: {against.tax} lost on average over tasks (below 0: gained)"


def _of_responses(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.suites:
        return
    yield f"prompts are sent with {evaluation.model.prompting}"
    suites = evaluation.suites
    cut = [f"{suite.name} {suite.cut} of {suite.prompts} at {_most(suite)}" for suite in suites if suite.cut]
    if cut:
        yield (
            f"responses cut at the limit of new tokens, where a later refusal is not seen ({'; '.join(cut)}): "
            "--max-new-tokens allows more"
        )
    empty = [f"{suite.name} {suite.empty} of {suite.prompts}" for suite in suites if suite.empty]
    if empty:
        yield f"empty responses: {'; '.join(empty)}"
    part = [f"{suite.name} {suite.prompts} of {suite.whole}" for suite in suites if suite.prompts < (suite.whole or 0)]
    if part:
        yield f"not all prompts, so not comparable with figures on all: {'; '.join(part)}"
    for suite in suites:
        yield from (f"{suite.name}: {text}" for text in suite.notes)


def _most(suite: SuiteFacts) -> str:
    return str(suite.decoding["max_new_tokens"])


def _of_judges(evaluation: Evaluation) -> Iterator[str]:
    return (f"judge {judge.name}: {judge.limits}" for judge in evaluation.judges if judge.limits)
