"""``torch``, ``F`` and ``np`` that import on first use.

A method's file contains its card *and* its mathematics. ``ls``, ``--help`` and completion read cards, and must not
spend over a second on importing torch; so method files write ``from alignzoo.lazy import F, torch``.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _LazyModule(ModuleType):
    """A placeholder that imports its module on first attribute access."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import numpy as np
    import torch as torch
    import torch.nn.functional as F
else:
    np = _LazyModule("numpy")
    torch = _LazyModule("torch")
    F = _LazyModule("torch.nn.functional")

__all__ = ["F", "np", "torch"]
