"""What a folder has of earlier evaluations of the same model: it stays in ``evaluation.json``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from alignzoo.errors import DamagedError
from alignzoo.evaluate.results import EVALUATION_FILE, Evaluation, ModelFacts, read_evaluation
from alignzoo.report import Reporter


def earlier_evaluation(folder: Path, model: ModelFacts, report: Reporter) -> Evaluation | None:
    """The evaluation in a folder, if it is of the same model, prompted in the same way."""
    if not (folder / EVALUATION_FILE).is_file():
        return None
    try:
        found = read_evaluation(folder)
    except DamagedError as error:
        report.warn(f"{error.message}; it is rewritten from the responses and verdicts")
        return None
    return found if replace(found.model, name=model.name) == model else None


def joined(earlier: Evaluation, later: Evaluation) -> Evaluation:
    """The later evaluation with the suites, and the tasks, that only the earlier one has."""
    suites = {suite.name for suite in later.suites}
    figures = [figure for figure in earlier.figures if figure.suite not in suites]
    judges = {judge.name: judge for judge in (*earlier.judges, *later.judges)}
    used = {figure.judge for figure in (*figures, *later.figures)}
    return replace(
        later,
        suites=(*(suite for suite in earlier.suites if suite.name not in suites), *later.suites),
        judges=tuple(judge for name, judge in judges.items() if name in used),
        figures=(*figures, *later.figures),
        agreement=(*(one for one in earlier.agreement if one.suite not in suites), *later.agreement),
        tasks=earlier.tasks if later.tasks is None else later.tasks,
    )
