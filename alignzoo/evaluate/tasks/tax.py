"""The alignment tax: what a model has lost on tasks compared with its base (Ouyang et al., 2022, section 4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from alignzoo.evaluate.tasks.capability import headline
from alignzoo.evaluate.tasks.task_results import Metric, TaskResult, TaskResults, sample_values
from alignzoo.evaluate.verdicts.statistics import RESAMPLES, percentiles, shown

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("task", "metric", "base", "model", "difference [95 % interval]", "documents")


@dataclass(frozen=True)
class TaskDifference:
    """A metric of both models.

    Attributes:
        task: a task or group.
        metric: lm-eval's name of it, ``METRIC,FILTER``.
        base, model: its values.
        difference: model minus base.
        low, high: its 95 % interval, from a paired bootstrap over documents; None where documents have no values
            whose mean is the metric.
        n: documents.
        headline: whether it stands for its task in the mean.
        higher_is_better: None if the task does not say.
    """

    task: str
    metric: str
    base: float
    model: float
    difference: float
    low: float | None
    high: float | None
    n: int
    headline: bool
    higher_is_better: bool | None


@dataclass(frozen=True)
class AlignmentTax:
    """The comparison of two models on the tasks that both ran.

    Attributes:
        differences: of every metric.
        tax: mean loss over tasks, in the unit of their headline metrics (shares): positive if the model is worse than
            its base; None without such a task.
        low, high: its 95 % interval; None if one of its tasks has none.
        tasks: the tasks and groups in the mean.
    """

    differences: tuple[TaskDifference, ...]
    tax: float | None
    low: float | None
    high: float | None
    tasks: tuple[str, ...]

    def __str__(self) -> str:
        return "-" if self.tax is None else _shown(self.tax, self.low, self.high)


def alignment_tax(
    model: TaskResults, base: TaskResults, folder: Path, base_folder: Path, *, seed: int = 0
) -> AlignmentTax:
    """Compare two models on the tasks that were asked for, document by document.

    The mean is over headline metrics that are shares (between 0 and 1, and higher is better): one a task or group.

    Args:
        folder, base_folder: of the evaluations, with each document's values.

    Raises:
        DamagedError: a file of samples cannot be read.
    """
    import numpy as np

    differences: list[TaskDifference] = []
    losses: dict[str, tuple[float, np.ndarray | None]] = {}
    for task in (name for name in model.chosen if name in base.results):
        here, there = model.results[task], base.results[task]
        shared = [metric for metric in here.metrics if metric in there.metrics]
        main = headline(task, shared)
        for metric in shared:
            draws = _draws(here, there, metric, folder, base_folder, seed)
            found = _difference(task, metric, here, there, draws, metric == main)
            differences.append(found)
            if found.headline and _is_share(here.metrics[metric]) and _is_share(there.metrics[metric]):
                losses[task] = -found.difference, None if draws is None else -draws
    if not losses:
        return AlignmentTax(tuple(differences), None, None, None, ())
    tax = float(np.mean([loss for loss, _ in losses.values()]))
    drawn = [draws for _, draws in losses.values() if draws is not None]
    low, high = percentiles(np.mean(drawn, axis=0)) if len(drawn) == len(losses) else (None, None)
    return AlignmentTax(tuple(differences), tax, low, high, tuple(losses))


def tax_rows(tax: AlignmentTax) -> list[list[str]]:
    """Rows for a table with :data:`COLUMNS`: each task's headline metric, then the mean."""
    rows = [
        [
            found.task,
            found.metric.removesuffix(",none"),
            f"{found.base:.3f}",
            f"{found.model:.3f}",
            _shown(found.difference, found.low, found.high),
            str(found.n),
        ]
        for found in tax.differences
        if found.headline
    ]
    if tax.tax is not None:
        low, high = (None, None) if tax.low is None or tax.high is None else (-tax.high, -tax.low)
        rows.append([f"mean of {len(tax.tasks)}", "", "", "", _shown(-tax.tax, low, high), ""])
    return rows


def _difference(
    task: str, metric: str, here: TaskResult, there: TaskResult, draws: Any, is_headline: bool
) -> TaskDifference:
    one, other = here.metrics[metric], there.metrics[metric]
    low, high = (None, None) if draws is None else percentiles(draws)
    return TaskDifference(
        task=task,
        metric=metric,
        base=other.value,
        model=one.value,
        difference=one.value - other.value,
        low=low,
        high=high,
        n=min(here.n, there.n),
        headline=is_headline,
        higher_is_better=one.higher_is_better,
    )


def _draws(
    here: TaskResult, there: TaskResult, metric: str, folder: Path, base_folder: Path, seed: int
) -> np.ndarray | None:
    """Bootstrapped means of the differences between documents; None if the metric is not their mean."""
    import numpy as np

    one, other = sample_values(folder, here, metric), sample_values(base_folder, there, metric)
    if one is None or other is None or one.keys() != other.keys():
        return None
    first, second = np.array(list(one.values())), np.array([other[key] for key in one])
    means = first.mean(), second.mean()
    if not np.allclose(means, (here.metrics[metric].value, there.metrics[metric].value), atol=1e-6):
        return None
    gaps = first - second
    generator = np.random.default_rng(seed)
    return np.array([gaps[generator.integers(0, len(gaps), len(gaps))].mean() for _ in range(RESAMPLES)])


def _is_share(metric: Metric) -> bool:
    return metric.higher_is_better is True and 0 <= metric.value <= 1


def _shown(value: float, low: float | None, high: float | None) -> str:
    return f"{value:+.3f}" if low is None or high is None else shown(value, low, high, signed=True)
