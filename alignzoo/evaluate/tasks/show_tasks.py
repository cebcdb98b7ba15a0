"""Tasks of lm-eval as a table, beside another model's: what alignment costs in capability."""

from __future__ import annotations

from typing import Any

from alignzoo.evaluate.tasks.capability import headline


def task_rows(
    here: dict[str, Any], there: dict[str, Any] | None
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows: the headline figure of each task that was asked for.

    Args:
        here, there: the ``tasks`` of two evaluations.
    """
    columns: tuple[str, ...] = ("task", "figure", "value ± standard error", "n", "few-shot")
    columns = columns if there is None else (*columns, "other", "difference")
    rows = []
    for name in here["chosen"]:
        result = here["results"][name]
        metric = headline(name, list(result["metrics"]))
        if metric is None:
            continue
        fewshot = "-" if result["fewshot"] is None else str(result["fewshot"])
        row = [name, metric.partition(",")[0], _value(result["metrics"][metric]), str(result["n"]), fewshot]
        rows.append((*row, *_beside(result, None if there is None else there["results"].get(name), metric, there)))
    return columns, tuple(rows)


def _beside(result: dict[str, Any], other: dict[str, Any] | None, metric: str, there: Any) -> tuple[str, ...]:
    if there is None:
        return ()
    if other is None or metric not in other["metrics"]:
        return ("-", "-")
    difference = result["metrics"][metric]["value"] - other["metrics"][metric]["value"]
    return _value(other["metrics"][metric]), f"{difference:+.4f}"


def _value(metric: dict[str, Any]) -> str:
    stderr = "" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}"
    return f"{metric['value']:.4f}{stderr}"
