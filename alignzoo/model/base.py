"""What lies under adapters."""

from __future__ import annotations

from typing import Any

REFERENCE_ADAPTER = "reference"
"""What the frozen copy of an already trained adapter is called."""


def without_adapter(model: Any) -> Any:
    """The model that adapters wrap, their layers left in place; a model without adapters as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
