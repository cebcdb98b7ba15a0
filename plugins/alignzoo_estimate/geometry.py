"""What controllers keep, copy and compute, measured by running them on a tiny model.

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
class Added:
    """What controllers add to a plain step.

    Attributes:
        kept: bytes from step to step, per byte of the trained weights.
        passing: the same within a step, beyond those and beyond a plain step.
        forwards: forward passes of a mean step, beyond those of the forward-backward passes.
        measured: False if a controller does not run on the tiny model; one copy is then assumed for each pass beyond
            the first, and no more forward passes.
    """

    kept: float = 0.0
    passing: float = 0.0
    forwards: float = 0.0
    measured: bool = True


def added(plan: Plan) -> Added:
    """What all controllers of a plan together add."""
    found = [_added_by(method) for method in plan.of("geometry") if _does_something(method)]
    return Added(
        kept=sum(one.kept for one in found),
        passing=max((one.passing for one in found), default=0.0),
        forwards=sum(one.forwards for one in found),
        measured=all(one.measured for one in found),
    )


def passes(plan: Plan) -> float:
    """Average forward-backward passes per step: with an interval, the extra ones are taken only in some steps."""
    controller = plan.one("geometry")
    return 1 + (_card(controller).passes - 1) / _interval(controller)


def _interval(method: Method) -> int:
    """Steps between two in which a controller does more than a plain step."""
    return getattr(method.options, "interval", None) or getattr(method.options, "every", None) or 1


def _card(method: Method) -> GeometryCard:
    assert isinstance(method.card, GeometryCard)
    return method.card


def _does_something(method: Method) -> bool:
    card = _card(method)
    return bool(card.options.model_fields) or card.passes > 1 or card.companion


def _added_by(method: Method) -> Added:
    try:
        with contained():
            return _measured(method)
    except Exception:  # a third-party controller that fails on a tiny model must not stop the estimate
        return Added(float(_card(method).averages), float(_card(method).passes - 1), measured=False)


def _measured(method: Method) -> Added:
    from alignzoo.contract.card import Options
    from alignzoo.testing.stages import AtTheWeights

    plain, card = _run(AtTheWeights(Options())), _card(method)
    found = _run(_controller(method), companion=card.companion)
    held = max(0.0, (found.kept - plain.kept) / found.size)
    passing = max(0.0, (found.peak - plain.peak) / found.size - held)
    forwards = max(0.0, found.forwards / plain.forwards - card.passes) / _interval(method)
    return Added(round(held, 2), round(passing, 2), forwards)


def _controller(method: Method) -> Any:
    from alignzoo.plugin.build import instantiate

    options, changes = method.options, dict[str, Any]()
    for name in ("interval", "every"):  # so that each of the few steps is due
        if name in method.card.options.model_fields:
            changes[name] = 1
    if "start" in method.card.options.model_fields:
        changes["start"] = 0
    return instantiate(method.card, options.model_copy(update=changes))


@dataclass(frozen=True)
class _Steps:
    """Some steps on the tiny model: bytes kept after them, at their peak, and of the trained weights; and how often
    the last one has called the model."""

    kept: int
    peak: int
    size: int
    forwards: int


def _run(controller: Any, *, companion: bool = False) -> _Steps:
    from alignzoo.testing.stages import mean_goal
    from alignzoo.testing.steps import Bench
    from alignzoo_estimate.simulate import Live

    bench, called = Bench(), list[int]()
    weights = [weight for weight in bench.policy.parameters() if weight.requires_grad]
    contexts = [bench.context(mean_goal(), step, size=_MICRO_BATCH) for step in range(_STEPS)]
    bench.policy.get_input_embeddings().register_forward_pre_hook(lambda *_: called.append(1))
    with Live(weights) as live:
        bench.setup(controller)
        for context in contexts:
            bench.policy.zero_grad(set_to_none=True)
            called.clear()
            if companion:
                context.backward()
            else:
                controller.step(context)
            controller.after_step(context)
        bench.policy.zero_grad(set_to_none=True)
        gc.collect()
        kept = live.now
    return _Steps(kept, live.peak, sum(weight.nbytes for weight in weights), len(called))
