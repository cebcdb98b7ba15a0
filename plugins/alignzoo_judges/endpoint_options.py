"""The options of judges behind an endpoint; what they do with them is imported only when it is used."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from alignzoo.contract.card import Options

_COST: dict[str, Any] = {"cost": True}  # options that no verdict depends on
PATH = "/chat/completions"
KEY_ENV = "OPENAI_API_KEY"


class ConnectionOptions(Options):
    """An OpenAI-compatible endpoint, and how much to ask of it."""

    url: str = Field(
        min_length=1,
        description="base url of the API",
        examples=["http://localhost:8000/v1"],
    )
    model: str = Field(min_length=1, description="name of the model there", examples=["gpt-4o-mini"])
    system: str | None = Field(None, description="system prompt")
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature")
    max_tokens: int = Field(64, ge=1, description="most tokens of a reply")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="the name of max_tokens in a request; newer models of OpenAI need the longer one"
    )
    key_env: str = Field(
        KEY_ENV,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable with the API key; none is sent if it is not set",
        json_schema_extra=_COST,
    )
    concurrency: int = Field(8, ge=1, le=256, description="requests at a time", json_schema_extra=_COST)
    timeout: float = Field(60.0, gt=0, description="seconds to wait for a reply", json_schema_extra=_COST)
    retries: int = Field(6, ge=0, le=20, description="times to send a failed request again", json_schema_extra=_COST)
    backoff: float = Field(
        1.0, gt=0, description="seconds before the first retry, doubled for each further one", json_schema_extra=_COST
    )
    max_requests: int | None = Field(
        None, ge=1, description="stop after so many requests, retries included", json_schema_extra=_COST
    )
    max_cost: float | None = Field(
        None, gt=0, description="stop before the cost could exceed this", json_schema_extra=_COST
    )
    price_in: float | None = Field(
        None, ge=0, description="price of a million input tokens, for max_cost", json_schema_extra=_COST
    )
    price_out: float | None = Field(
        None, ge=0, description="price of a million output tokens, for max_cost", json_schema_extra=_COST
    )

    @field_validator("url")
    @classmethod
    def _is_a_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https url, such as https://api.openai.com/v1")
        if not _has_port(url):
            raise ValueError("has a port that is none")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must not have a user name, a query or a fragment; a key goes into key_env's variable")
        return url.rstrip("/").removesuffix(PATH)

    @model_validator(mode="after")
    def _a_cost_has_prices(self) -> ConnectionOptions:
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("max_cost needs price_in and price_out, per million tokens")
        return self


def _has_port(url: str) -> bool:
    """Whether the port, if there is one, is a number in its range."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
