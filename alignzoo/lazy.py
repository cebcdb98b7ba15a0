"""``torch`` and ``F`` that import on first use.

A method's file holds its card *and* its mathematics. Cards are read by ``ls``, ``--help`` and completion, which must
not pay for importing torch (over a second); so method files write ``from alignzoo.lazy import F, torch``.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _LazyModule(ModuleType):
    """Stands for a module and imports it when the first attribute is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import torch as torch
    import torch.nn.functional as F
else:
    torch = _LazyModule("torch")
    F = _LazyModule("torch.nn.functional")

__all__ = ["F", "torch"]
