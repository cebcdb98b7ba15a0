"""The options that every published judge model has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from alignzoo.contract.card import Options


class ModelOptions(Options):
    """Which weights, and their precision."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of its weights (auto: bf16 on a GPU, else fp32)"
    )


def model_field(default: str) -> Any:
    """The option ``model`` with the publisher's id as its default."""
    return Field(
        default,
        min_length=1,
        description="hub id or folder of the judge model",
        json_schema_extra={"path": True},
    )
