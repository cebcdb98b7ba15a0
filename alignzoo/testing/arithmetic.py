"""Shapes, gradients and finiteness of what a method computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.lazy import torch
from alignzoo.testing.outcomes import Violation
from alignzoo.testing.sample import AnyBatch, leaves


def check_vector(value: Any, like: torch.Tensor, what: str) -> None:
    """Raise unless ``value`` is a finite tensor of the shape and dtype of ``like``, ``(B,)``."""
    if not isinstance(value, torch.Tensor):
        found = f"a {type(value).__name__}"
    elif value.shape != like.shape:
        found = f"shape {tuple(value.shape)}"
    elif value.dtype != like.dtype:
        found = f"dtype {value.dtype}"
    elif not bool(torch.isfinite(value).all()):
        found = f"{float(value[~torch.isfinite(value)][0].detach())} among them"
    else:
        return
    raise Violation(
        expected=f"{what} to be finite numbers in a tensor of shape {tuple(like.shape)} and dtype {like.dtype}",
        found=found,
        remedy="return one number per value, in the dtype of the log-probs; the mean over the step is taken elsewhere",
    )


def check_finite(results: Mapping[str, Any], where: str) -> None:
    """Raise unless all tensors are finite; those that are None are passed over."""
    for name, tensors in results.items():
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else tensors
        for tensor in tensors:
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                bad = tensor[~torch.isfinite(tensor)].flatten()[0]
                raise Violation(
                    expected=f"finite {name} {where}",
                    found=str(float(bad.detach())),
                    remedy="use forms that do not overflow: F.logsigmoid, F.softplus, torch.logsumexp, torch.expm1",
                )


def check_gradient(fn: Callable[[Any], torch.Tensor], batch: AnyBatch, where: str) -> None:
    """Raise unless autograd's gradient of ``fn`` in the policy's fields is the numerical one (float64). KL responses
    are left out: an estimate that is made of them is a constant of the step."""
    inputs, wanted = leaves(batch)
    constants = {name: leaf.detach().clone() for name, leaf in wanted.items()}

    def values(*tensors: torch.Tensor) -> torch.Tensor:
        given: dict[str, Any] = {
            name: _but_for_kl(tensor, constant, inputs)
            for (name, constant), tensor in zip(constants.items(), tensors, strict=True)
        }
        return fn(replace(inputs, **given))

    remedy = (
        "compute in torch from the policy's fields, without detach(), item() or float(); where a term is detached on "
        "purpose, say so in expected_failures"
    )
    if not values(*wanted.values()).requires_grad:
        raise Violation(
            expected="values that can be differentiated in the policy's log-probs",
            found=f"constants {where}",
            remedy=remedy,
        )
    try:
        torch.autograd.gradcheck(values, tuple(wanted.values()), check_undefined_grad=False)
    except RuntimeError as error:
        raise Violation(
            expected="autograd's gradient to be the numerical one",
            found=f"another {where}: {' '.join(str(error).split())[:160]}",
            remedy=remedy,
        ) from error


def _but_for_kl(value: torch.Tensor, constant: torch.Tensor, batch: AnyBatch) -> torch.Tensor:
    """A policy's field in which the KL responses are constants."""
    if not isinstance(batch, ResponseBatch) or batch.roles is None:
        return value
    own = batch.roles == POLICY
    return torch.where(own if value.dim() == 1 else own[:, None], value, constant)


def differ(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    """Whether any bit of two lists of results differs."""
    return len(one) != len(other) or any(not _equal(a, b) for a, b in zip(one, other, strict=True))


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
