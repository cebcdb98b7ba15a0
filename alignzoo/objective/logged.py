"""Numbers that methods log: checked, and moved to the host at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from alignzoo.objective.guard import a, wrong


def numbers(method: Any, prefix: str, given: Any) -> dict[str, float | torch.Tensor]:
    """The result of a method's ``metrics()``, by the names in the file.

    Raises:
        MethodError: it is not a mapping from strings to numbers.
    """
    due = "metrics() returns a mapping from names to numbers or tensors ()"
    if not isinstance(given, Mapping):
        raise wrong(method, type(method).metrics, a(given), due)
    for key, value in given.items():
        if not isinstance(key, str):
            raise wrong(method, type(method).metrics, f"{a(key)} as a name", due)
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise wrong(method, type(method).metrics, f"shape {tuple(value.shape)} as {key!r}", due)
        if not isinstance(value, (int, float, torch.Tensor)):
            raise wrong(method, type(method).metrics, f"{a(value)} as {key!r}", due)
    return {f"{prefix}/{key}": value for key, value in given.items()}


def floats(found: dict[str, float | torch.Tensor]) -> dict[str, float]:
    """The numbers, with a single synchronisation per device: statistics of the steps may be where these were, and
    numbers of a held-out batch on the host."""
    names: dict[torch.device, list[str]] = {}
    for name, value in found.items():
        if isinstance(value, torch.Tensor):
            names.setdefault(value.device, []).append(name)
    taken: dict[str, float] = {}
    for of_device in names.values():
        values = [torch.as_tensor(found[name]).detach().double().reshape(()) for name in of_device]
        taken |= dict(zip(of_device, torch.stack(values).tolist(), strict=True))
    return {name: taken[name] if name in taken else float(value) for name, value in found.items()}
