"""What runs cost: seconds, tokens per second, memory, passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alignzoo.comparison.groups import Group
from alignzoo.comparison.results import CostRow, OverSeeds
from alignzoo.comparison.statistics import over_seeds
from alignzoo.contract.geometry import GeometryCard
from alignzoo.errors import UnknownNameError
from alignzoo.plugin.registry import registry
from alignzoo.records.run import RunRecord


def cost_rows(groups: Sequence[Group]) -> list[CostRow]:
    """The cost of each group's runs, in order."""
    return [
        CostRow(
            group=group.label,
            block=group.block,
            seconds=_over(group, training_seconds),
            wall=_over(group, lambda run: run.result.seconds if run.result else None),
            tokens_per_second=_over(group, _speed),
            peak_memory=_over(group, lambda run: getattr(run.result, "peak_memory", None) or None),
            passes=_passes(next(iter(group.runs.values()))),
        )
        for group in groups
    ]


def training_seconds(run: RunRecord) -> float | None:
    """The seconds of all optimizer steps; None if there are none."""
    return _sums(run)[0] or None


def _speed(run: RunRecord) -> float | None:
    seconds, tokens = _sums(run)
    return tokens / seconds if seconds else None


def _sums(run: RunRecord) -> tuple[float, float]:
    """The seconds and tokens of all steps."""
    lines = [line for line in run.metrics() if "step_seconds" in line]
    return sum(line["step_seconds"] for line in lines), sum(line.get("tokens", 0) for line in lines)


def _over(group: Group, figure: Callable[[RunRecord], float | None]) -> OverSeeds | None:
    values = {seed: value for seed, run in group.runs.items() if (value := figure(run)) is not None}
    return over_seeds(values) if values else None


def _passes(run: RunRecord) -> float | None:
    """Forward-backward passes per step, on average; None if the controller is not installed here.

    With an interval, the extra passes are taken only in some steps.
    """
    controllers = run.methods.get("geometry") or []
    if not controllers:
        return 1.0
    try:
        card = registry().find("geometry", controllers[0])
    except UnknownNameError:
        return None
    if not isinstance(card, GeometryCard):
        return None
    options = ("interval", "every")
    prefixes = ("geometry", f"geometry.{controllers[0]}")
    intervals = [run.values.get(f"{prefix}.{option}") for option in options for prefix in prefixes]
    return 1 + (card.passes - 1) / next((interval for interval in intervals if interval), 1)
