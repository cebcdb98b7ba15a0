"""One optimizer step on a tiny model, outside of a run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator

from alignzoo import load_method
from alignzoo.data.collate import TokenBatch
from alignzoo.interfaces import PreferenceLoss, RobustWrapper
from alignzoo.model.reference import Reference
from alignzoo.train.context import Engine, StepContext
from alignzoo.train.logps import padded_pair_logps
from alignzoo.train.objective import Objective


def objective(loss: str | PreferenceLoss = "dpo", *wrappers: str | RobustWrapper, coupled: bool = False) -> Objective:
    built = load_method("loss", loss) if isinstance(loss, str) else loss
    stack = [load_method("robust", w) if isinstance(w, str) else w for w in wrappers]
    return Objective(built, stack, coupled=coupled)


def context(
    model: Any, batches: Sequence[TokenBatch], goal: Objective, *, reference: Any = None, step: int = 0
) -> StepContext:
    """A step's context with the given reference model (an independent random one by default)."""
    reference = reference if reference is not None else shifted(model)
    forward = partial(padded_pair_logps, tokens=True)
    engine = Engine(model, forward, goal, Accelerator(cpu=True), seed=0)
    frozen = Reference(reference, forward)
    return StepContext(engine, batches, [frozen(batch) for batch in batches], step)


def shifted(model: Any, by: float = 0.3) -> Any:
    """A copy of the model somewhere else in weight space."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += (by * parameter.double().std().nan_to_num(0.1) * noise).to(parameter.dtype)
    return other


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradients in ``.grad``, taken away from the model."""
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return grads
