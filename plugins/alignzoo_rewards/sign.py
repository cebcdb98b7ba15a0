"""The sign option of rewards whose scores come from an external source."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator


def _typed(sign: Any) -> Any:
    """A sign from the command line as a number; anything else unchanged."""
    return {"1": 1, "-1": -1}.get(sign, sign) if isinstance(sign, str) else sign


Sign = Annotated[Literal[1, -1], BeforeValidator(_typed)]
"""1 or -1."""
