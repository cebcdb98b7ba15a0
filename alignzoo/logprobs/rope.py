"""Rotary embeddings that make a sequence's log-probs depend on the others of its batch."""

from __future__ import annotations

from typing import Any

from alignzoo.logprobs.logps import innermost


def goes_by_batch(policy: Any, longest: int) -> str | None:
    """The kind of rotary embedding that makes a sequence's log-probs depend on what else is in its batch, if the model
    has such a one and sequences of ``longest`` tokens make it do so."""
    config = innermost(policy).config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]
    for kind in kinds:
        if kind.get("rope_type") in ("dynamic", "longrope"):
            original = kind.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", config.max_position_embeddings
            )
            if longest > original:
                return str(kind["rope_type"])
    return None
