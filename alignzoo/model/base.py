"""The model underneath adapters."""

from __future__ import annotations

from typing import Any

REFERENCE_ADAPTER = "reference"
"""Name of the frozen copy of an already trained adapter."""


def without_adapter(model: Any) -> Any:
    """The model that adapters wrap, with their layers left in place; a model without adapters is returned as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
