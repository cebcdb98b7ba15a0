"""``alignzoo eval``'s figures in a model card."""

from __future__ import annotations

from dataclasses import replace

from alignzoo.base.files import local_path
from alignzoo.evaluate.results import Evaluation
from alignzoo.evaluate.show import NAMES, notes, tables
from alignzoo_export.markdown import bullets, table, text
from alignzoo_export.run_facts import short_name


def evaluation_section(evaluation: Evaluation) -> str:
    """The tables that ``alignzoo eval`` prints, and what a reader must know of them."""
    evaluation = _without_paths(evaluation)
    parts = []
    for shown in tables(evaluation):
        rows = [[text(cell) for cell in row] for row in shown.rows]
        parts += [f"**`alignzoo eval`: {text(shown.title)}**", table([text(column) for column in shown.columns], rows)]
    return "\n\n".join([*parts, bullets([text(note) for note in notes(evaluation)])])


def not_measured(evaluation: Evaluation | None, *, judged: bool) -> list[str]:
    """What was not evaluated.

    Args:
        judged: whether generated responses were judged in the run itself.
    """
    if evaluation is None or not evaluation.suites:
        what = "No suite of prompts was run (`alignzoo eval`)"
        limits = [f"{what}." if judged else f"{what} and no generated response was judged."]
    else:
        measured = {suite.measures for suite in evaluation.suites}
        limits = [f"Not measured: {name}." for key, name in NAMES.items() if key not in measured]
        judges = ", ".join(text(judge.name) for judge in evaluation.judges)
        limits.append(f"Rates depend on the judge ({judges}); another judge gives other rates.")
    if evaluation is None or not evaluation.tasks:
        limits.append("General capabilities (lm-eval tasks) were not measured.")
    return limits


def _without_paths(evaluation: Evaluation) -> Evaluation:
    """With names of models that say nothing of the machine."""
    evaluation = replace(evaluation, model=replace(evaluation.model, name="this model"))
    against = evaluation.against
    if against is None:
        return evaluation
    name = against.model.name
    if local_path(name).is_dir():
        name = name.removesuffix("/model")  # of a run, its folder
    other = replace(against, model=replace(against.model, name=short_name(name)))
    return replace(evaluation, against=other)
