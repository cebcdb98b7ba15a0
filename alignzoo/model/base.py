"""What lies under adapters."""

from __future__ import annotations

from typing import Any


def without_adapter(model: Any) -> Any:
    """The model that adapters wrap, their layers left in place; a model without adapters as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
