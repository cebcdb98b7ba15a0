"""Guards around methods' code: errors name the method, with file and line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from alignzoo.errors import AlignzooError, MethodError
from alignzoo.plugin.blame import place_of
from alignzoo.plugin.faults import package_of
from alignzoo.plugin.guard import guarded


def blamed(methods: Sequence[Any], what: str) -> AbstractContextManager[None]:
    """Inside, an error in methods' code becomes one that names them; alignzoo's own errors pass through.

    Raises:
        MethodError: anything else was raised, except for out-of-memory errors.
    """
    names = " under ".join(type(method).__name__ for method in methods)
    return guarded(
        f"{names} {what}",
        passes=(AlignzooError, MemoryError, torch.OutOfMemoryError),
        packages={package_of(type(method).__module__) for method in methods},
    )


def fault(value: Any, shape: Sequence[int], *, differentiable: bool = False) -> str | None:
    """What is wrong with a method's result, which should be a floating-point tensor of this shape, or None."""
    if not isinstance(value, torch.Tensor):
        return a(value)
    if tuple(value.shape) != tuple(shape):
        return f"shape {tuple(value.shape)}"
    if not value.is_floating_point():
        return f"dtype {str(value.dtype).removeprefix('torch.')}"
    if differentiable and not value.requires_grad:
        return "values without a gradient (by detach(), item() or no_grad())"
    return None


def a(value: Any) -> str:
    """A value's type with its article, for a message."""
    if value is None:
        return "None"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def wrong(method: Any, function: Callable[..., Any], returned: str, due: str) -> MethodError:
    """The error for an invalid result of a method's function."""
    return MethodError(
        f"{type(method).__name__} returned {returned}; {due}{place_of(function)}",
        hint="`alignzoo check` runs the contract tests on a method",
    )
