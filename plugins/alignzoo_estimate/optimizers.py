"""The memory of an optimizer, measured by taking a step with it on one small weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alignzoo.plan.settings import Settings
from alignzoo_estimate.simulate import Live

_SIDE = 512


@dataclass(frozen=True)
class OptimizerBytes:
    """Bytes per byte of a trained weight.

    Attributes:
        kept: from step to step.
        working: while the weight is updated, beyond that.
        at_once: all weights are updated together rather than one after another.
    """

    kept: float
    working: float
    at_once: bool = False


def optimizer_bytes(settings: Settings, *, cuda: bool) -> OptimizerBytes:
    """The memory of ``--optimizer``.

    Raises:
        UsageError: there is no such optimizer.
    """
    from alignzoo.train.optim import EIGHT_BIT, make_optimizer

    if settings.optimizer.lower() == EIGHT_BIT:  # two one-byte moments, and a scale per block of 256
        return OptimizerBytes(0.5 + 2 / 256, 0.0)
    weight = torch.nn.Parameter(torch.zeros(_SIDE, _SIDE))
    weight.grad, size = torch.ones_like(weight), float(weight.nbytes)
    with Live([weight, weight.grad]) as live:
        optimizer = make_optimizer([weight], settings)
        at_once = cuda and not optimizer.defaults.get("fused") and "foreach" in optimizer.defaults
        for group in optimizer.param_groups:  # what torch itself chooses on GPUs
            group |= {"foreach": True} if at_once else {}
        optimizer.step()
        kept = live.now
        live.restart()
        optimizer.step()
        working = live.peak - kept
    return OptimizerBytes(round(kept / size, 3), round(working / size, 3), at_once)
