"""``alignzoo eval``'s figures in a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignzoo_export.markdown import bullets, code, table, text

_MEASURES = {"attack_success": "attack success", "over_refusal": "over-refusal"}


def evaluation_section(evaluation: Mapping[str, Any]) -> str:
    """Rates with intervals by suite and judge, the paired comparison, and the judges' own limits."""
    parts = ["**alignzoo eval**"]
    rows = [_figure(figure) for figure in evaluation.get("figures") or ()]
    if rows:
        parts.append(table(["suite", "measure", "judge", "rate [95 % interval]", "prompts", "unparsed"], rows))
    against = evaluation.get("against")
    if against:
        differences = [_difference(difference) for difference in against.get("differences") or ()]
        if differences:
            parts.append(f"This model minus {code(against['model']['name'].rpartition('/')[2])}, on the same prompts:")
            parts.append(table(["suite", "judge", "difference [95 % interval]", "p (McNemar)"], differences))
    tasks = _tasks(evaluation.get("tasks"))
    if tasks:
        parts.append(table(["lm-eval task", "metric", "value"], tasks))
    judges = [f"{text(one['name'])}: {text(one['limits'])}" for one in evaluation.get("judges") or () if one["limits"]]
    if judges:
        parts += ["Limits of the judges:", bullets(judges)]
    return "\n\n".join(parts)


def not_measured(evaluation: Mapping[str, Any] | None, *, judged: bool) -> list[str]:
    """What was not evaluated.

    Args:
        judged: whether generated responses were judged in the run itself.
    """
    suites = [] if evaluation is None else list(evaluation.get("suites") or ())
    measured = {suite["measures"] for suite in suites}
    limits = []
    if not suites:
        what = "No suite of prompts was run (`alignzoo eval`)"
        limits.append(f"{what}." if judged else f"{what} and no generated response was judged.")
    else:
        missing = [name for key, name in _MEASURES.items() if key not in measured]
        limits += [f"Not measured: {name}." for name in missing]
        judges = ", ".join(text(judge["name"]) for judge in (evaluation or {}).get("judges") or ())
        limits.append(f"Rates depend on the judge ({judges}); another judge gives other rates.")
        partial = [text(one["name"]) for one in suites if one.get("whole") and one["prompts"] < one["whole"]]
        limits += [f"Only a part of the prompts was used of {', '.join(partial)}."] if partial else []
    if evaluation is None or not evaluation.get("tasks"):
        limits.append("General capabilities (lm-eval tasks) were not measured.")
    return limits


def _figure(figure: Mapping[str, Any]) -> list[str]:
    rate = figure["rate"]
    measures = _MEASURES.get(figure["measures"], figure["measures"])
    shown = f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
    return [
        text(figure["suite"]),
        text(measures),
        text(figure["judge"]),
        text(shown),
        str(rate["n"]),
        str(figure["unparsed"]),
    ]


def _difference(difference: Mapping[str, Any]) -> list[str]:
    shown = f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return [text(difference["suite"]), text(difference["judge"]), text(shown), f"{difference['p_value']:.3g}"]


def _tasks(tasks: Any) -> list[list[str]]:
    """``(task, metric, value)`` of lm-eval's results; nested names are joined."""
    results = tasks.get("results", tasks) if isinstance(tasks, Mapping) else {}
    return [
        [text(task), text(metric), f"{value:.4f}"]
        for task, metrics in results.items()
        if isinstance(metrics, Mapping)
        for metric, value in metrics.items()
        if isinstance(value, float)
    ]
