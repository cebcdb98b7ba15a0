"""Which way scores count: the option of the rewards whose scores come from elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator


def _typed(sign: Any) -> Any:
    """A sign as a command line has it, as a number; anything else as it is."""
    return {"1": 1, "-1": -1}.get(sign, sign) if isinstance(sign, str) else sign


Sign = Annotated[Literal[1, -1], BeforeValidator(_typed)]
"""1 or -1."""
