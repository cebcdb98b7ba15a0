"""What a model's class and config say about packing, and the rows on which the rest can be found out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from alignzoo.data.lengths import Lengths
from alignzoo.logprobs.logps import forward_parameters, innermost

_BY_ROW = ("attn_temperature_tuning", "index_topk")
_REACHES = re.compile("window|chunk|block|local|stride|sparse|topk")
"""Words in config names that indicate layers with distance-dependent behaviour."""


def why_not_packed(model: Any) -> str | None:
    """Why a model cannot be packed, or None."""
    if getattr(model, "_is_stateful", False):
        return "the model is recurrent: its layers mix positions in the order of the row"
    if _has_alibi(model):
        return "the model measures positions within the row (ALiBi)"
    if hasattr(model.config, "vision_config"):
        return "the model accepts images"
    for name in _BY_ROW:
        if getattr(model.config.get_text_config(), name, None):
            return f"the model's {name} depends on a token's position in the row"
    if "position_ids" not in forward_parameters(model.__class__):
        return "the model does not accept position_ids"
    return None


def _has_alibi(model: Any) -> bool:
    """Whether a model biases attention by the distance within the row: a setting says so, be it one of a group of
    settings, or where none does, its trunk builds such biases."""
    config = model.config.get_text_config()
    groups = [config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))]
    said = [group.alibi for group in groups if hasattr(group, "alibi")]
    if said:
        return any(said)
    return any("alibi" in name for name in dir(type(getattr(model, model.base_model_prefix, model))))


def worth_trying(policy: Any, lengths: Lengths, first: Sequence[int]) -> list[int]:
    """Rows to try packing on: the shortest and the longest of the first step, and the one with the most responses where
    both have fewer; and those that are longest of all where the model has layers that may treat what is far apart in
    another way.

    Args:
        lengths: of all rows.
        first: rows of the first step.
    """
    by_length = sorted(first, key=lambda row: int(lengths.longest[row]))
    rows = [by_length[0], by_length[-1]]
    most = max(by_length, key=lambda row: int(lengths.responses[row]))
    if lengths.responses[most] > lengths.responses[rows].max():
        rows.append(most)
    if _reaches(policy) < int(lengths.packed.max()):
        rows += [int(lengths.longest.argmax()), int(lengths.packed.argmax())]
    return list(dict.fromkeys(rows))


def _reaches(policy: Any) -> float:
    """Tokens up to which a model's layers look alike at all that came before, as far as its config tells."""
    model = innermost(policy)
    if not model._can_set_attn_implementation():  # its attention is its own, and may be anything
        return 0
    values = vars(model.config.get_text_config()).items()
    found = [v for name, v in values if type(v) is int and v > 0 and _REACHES.search(name)]
    return min(found, default=math.inf)


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
