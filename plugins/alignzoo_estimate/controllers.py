"""What each geometry controller would add to a run, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo_estimate.estimate import estimate
from alignzoo_estimate.situation import Situation

PLAIN = "plain"


@dataclass(frozen=True)
class Row:
    """One controller in place of the run's; ``refused`` says why the run would reject it, and the rest is then None.

    Attributes:
        passes: forward-backward passes of a mean step.
        geometry: bytes of a device for the controller alone, at the moment when it has most.
        peak: bytes of a device, with everything else.
        work: FLOPs of a mean step, relative to the plain step.
        seconds: of a mean step without overlap, if rates are known; ``ratio`` is relative to the plain step.
    """

    name: str
    passes: float | None = None
    geometry: float | None = None
    peak: float | None = None
    work: float | None = None
    seconds: float | None = None
    ratio: float | None = None
    refused: str | None = None


def by_controller(situation: Situation, layers: Sequence[Layer], names: Iterable[str] | None = None) -> list[Row]:
    """The run with each controller instead of its own, with its default options; the plain step first.

    Args:
        layers: the layers that the plan was resolved from.
        names: controllers; all that are installed by default.
    """
    from alignzoo.plugin.registry import registry

    if names is None:
        names = sorted({card.name for _, card in registry().entries("geometry")})
    others = [name for name in names if name != PLAIN]
    plain = _with(situation, layers, PLAIN)
    return [_row(situation, layers, name, plain) for name in (PLAIN, *others)]


def _row(situation: Situation, layers: Sequence[Layer], name: str, plain: Situation | str) -> Row:
    changed = _with(situation, layers, name)
    if isinstance(changed, str):
        return Row(name, refused=changed)
    found = estimate(changed)
    base = None if isinstance(plain, str) else estimate(plain)
    return Row(
        name,
        passes=changed.passes,
        geometry=max(moment.parts.get("geometry", 0.0) for moment in found.moments),
        peak=found.peak.total,
        work=found.work.total / base.work.total if base else None,
        seconds=found.seconds,
        ratio=found.seconds / base.seconds if base and base.seconds and found.seconds else None,
    )


def _with(situation: Situation, layers: Sequence[Layer], name: str) -> Situation | str:
    """The situation with another controller, or why there is none."""
    kept = [Layer(one.origin, _without_geometry(one)) for one in layers]
    launch = situation.hardware.sharding
    resolved = resolve([*kept, Layer("controllers", {"geometry": [name]})], distributed=launch)
    if not isinstance(resolved, Plan):
        return resolved[0].message
    return replace(situation, plan=replace(resolved, settings=situation.settings))


def _without_geometry(layer: Layer) -> dict[str, object]:
    return {key: value for key, value in layer.values.items() if key.split(".")[0] != "geometry"}
