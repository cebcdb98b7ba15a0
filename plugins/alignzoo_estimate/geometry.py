"""What controllers keep and copy, in units of the trained weights, measured by running them on a tiny model.

No controller is known by name, and third-party ones are measured like the built-in ones.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

from alignzoo.contract.geometry import GeometryCard
from alignzoo.errors import contained
from alignzoo.plan.plan import Method, Plan

_MICRO_BATCH = 4  # rows; two micro-batches per step, so that gradients exist in the second
_STEPS = 2


@dataclass(frozen=True)
class Copies:
    """Bytes per byte of the trained weights.

    Attributes:
        kept: from step to step.
        passing: within a step, beyond that and beyond a plain step.
        measured: False if a controller does not run on the tiny model; one copy is then assumed for each pass beyond
            the first.
    """

    kept: float = 0.0
    passing: float = 0.0
    measured: bool = True


def copies(plan: Plan) -> Copies:
    """The copies of all controllers of a plan together."""
    found = [_copies_of(method) for method in plan.of("geometry") if _does_something(method)]
    return Copies(
        sum(one.kept for one in found), max((one.passing for one in found), default=0.0), all(o.measured for o in found)
    )


def passes(plan: Plan) -> float:
    """Average forward-backward passes per step: with an interval, the extra ones are taken only in some steps."""
    controller = plan.one("geometry")
    options: Any = controller.options
    interval = getattr(options, "interval", None) or getattr(options, "every", None) or 1
    return 1 + (_card(controller).passes - 1) / interval


def _card(method: Method) -> GeometryCard:
    assert isinstance(method.card, GeometryCard)
    return method.card


def _does_something(method: Method) -> bool:
    card = _card(method)
    return bool(card.options.model_fields) or card.passes > 1 or card.companion


def _copies_of(method: Method) -> Copies:
    try:
        with contained():
            return _measured(method)
    except Exception:  # a third-party controller that fails on a tiny model must not stop the estimate
        return Copies(float(_card(method).averages), float(_card(method).passes - 1), measured=False)


def _measured(method: Method) -> Copies:
    from alignzoo.contract.card import Options
    from alignzoo.testing.stages import AtTheWeights

    plain_kept, plain_peak, size = _bytes(AtTheWeights(Options()))
    kept, peak, _ = _bytes(_controller(method), companion=_card(method).companion)
    held = max(0.0, (kept - plain_kept) / size)
    return Copies(round(held, 2), round(max(0.0, (peak - plain_peak) / size - held), 2))


def _controller(method: Method) -> Any:
    from alignzoo.plugin.build import instantiate

    options, changes = method.options, dict[str, Any]()
    for name in ("interval", "every"):  # so that each of the few steps is due
        if name in method.card.options.model_fields:
            changes[name] = 1
    if "start" in method.card.options.model_fields:
        changes["start"] = 0
    return instantiate(method.card, options.model_copy(update=changes))


def _bytes(controller: Any, *, companion: bool = False) -> tuple[float, float, float]:
    """Bytes kept after some steps, at the peak, and of the trained weights."""
    from alignzoo.testing.stages import mean_goal
    from alignzoo.testing.steps import Bench
    from alignzoo_estimate.simulate import Live

    bench = Bench()
    weights = [weight for weight in bench.policy.parameters() if weight.requires_grad]
    contexts = [bench.context(mean_goal(), step, size=_MICRO_BATCH) for step in range(_STEPS)]
    with Live(weights) as live:
        bench.setup(controller)
        for context in contexts:
            bench.policy.zero_grad(set_to_none=True)
            if companion:
                context.backward()
            else:
                controller.step(context)
            controller.after_step(context)
        bench.policy.zero_grad(set_to_none=True)
        gc.collect()
        kept = live.now
    return float(kept), float(live.peak), float(sum(weight.nbytes for weight in weights))
