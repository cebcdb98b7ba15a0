"""alignzoo: any preference loss x any stack of robust wrappers x any geometry controller, in one training loop.

``alignzoo.run(recipe)``, ``alignzoo.list_methods()``, ``alignzoo.load_method("loss", "dpo", beta=0.1)``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alignzoo.version import __version__

if TYPE_CHECKING:
    from alignzoo.contract.pairs import PairBatch as PairBatch
    from alignzoo.contract.result import RunResult as RunResult
    from alignzoo.errors import AlignzooError as AlignzooError
    from alignzoo.plugin.build import load_method as load_method
    from alignzoo.plugin.registry import list_methods as list_methods
    from alignzoo.runs.execute import run as run

_PUBLIC = {
    "AlignzooError": "alignzoo.errors",
    "PairBatch": "alignzoo.pairs",
    "RunResult": "alignzoo.contract.result",
    "list_methods": "alignzoo.plugin.registry",
    "load_method": "alignzoo.plugin.build",
    "run": "alignzoo.runs.execute",
}

__all__ = ["AlignzooError", "PairBatch", "RunResult", "__version__", "list_methods", "load_method", "run"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'alignzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
