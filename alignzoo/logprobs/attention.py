"""Attention over packed rows, as transformers' models call it.

Registered with transformers under :data:`NAME`. Without a pack it is ``sdpa``. With one, each segment is computed
separately: the prompt and its first response as one causal sequence (no mask; the kernel skips future positions), then
each further response against the prompt and itself. So work and memory grow with the segments, not with the square of
the whole row, and a segment's numbers do not depend on the rest of the row. On a GPU, FlexAttention and, in 16 bits,
FlashAttention for sequences of various lengths do the same in one call.
"""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F

from alignzoo.data.pack import Pack

NAME = "alignzoo_packed"
NARROW = (torch.bfloat16, torch.float16)
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "cache")


class CannotPack(Exception):
    """The model's attention needs something that packed attention does not support."""


def register() -> None:
    """Register :data:`NAME` with transformers; idempotent."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    pack: Pack | None = None,
    way: str = "segments",
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """``(1, T, heads, width)`` from ``query`` ``(1, heads, T, width)`` and ``key``, ``value`` with as many heads or
    fewer.

    Args:
        way: ``segments``, ``flex`` or ``varlen``. With dropout, all are ``segments``; so is ``varlen`` in other dtypes
            than 16-bit ones.

    Raises:
        CannotPack: the layer caps its scores, or has sinks or position biases.
    """
    if pack is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise CannotPack(f"its attention has {name}, which packed attention does not support")
    window = options.get("sliding_window") or getattr(module, "sliding_window", None)
    if way != "segments" and not dropout:
        dtype = compute_dtype(value)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)  # rotary embeddings can leave mixed dtypes
        if way == "flex":
            return _flex(query, key, value, pack, window, scaling), None
        if dtype in NARROW:
            return _varlen(query, key, value, pack, window, scaling), None
    if query.device.type == "cpu" and value.dtype in (torch.bfloat16, torch.float16):
        # At the lengths of dialogues, fp32 kernels are the faster ones there, and they are the more exact ones.
        with torch.autocast("cpu", enabled=False):
            found = _by_segments(query.float(), key.float(), value.float(), pack, window, scaling, dropout)
        return found.to(value.dtype), None
    return _by_segments(query, key, value, pack, window, scaling, dropout), None


def _by_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pack: Pack,
    window: int | None,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    sizes = [size for one in pack.segments for size in (one.prompt + one.responses[0], *one.responses[1:])]
    parts = zip(*(part.split(sizes, 2) for part in (query, key, value)), strict=True)
    found = []
    for i, segment in enumerate(pack.segments):
        asking, seen, read = next(parts)
        found.append(_attended(asking, seen, read, pack.first_mask(i, window), scaling, dropout))
        prompt = seen[:, :, : segment.prompt], read[:, :, : segment.prompt]
        for j in range(1, len(segment.responses)):
            asking, *own = next(parts)
            seen, read = (torch.cat(both, 2) for both in zip(prompt, own, strict=True))
            found.append(_attended(asking, seen, read, pack.further_mask(i, j, window), scaling, dropout))
    return torch.cat([part.transpose(1, 2) for part in found], 1)


def _attended(
    asking: torch.Tensor,
    seen: torch.Tensor,
    read: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """Attention of one sequence, causal without a mask; arguments are a part of those of :func:`packed_attention`."""
    if mask is not None and asking.is_cuda:  # where a mask leaves shared heads to the slowest kernel
        seen, read = (part.repeat_interleave(asking.shape[1] // part.shape[1], 1) for part in (seen, read))
    return F.scaled_dot_product_attention(
        asking,
        seen,
        read,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=seen.shape[1] != asking.shape[1],
    )


def _flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pack: Pack,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """The whole row in one FlexAttention call, whose block mask skips blocks that no segment needs."""
    attend = _compiled() if query.is_cuda else _plain()
    grouped = key.shape[1] != query.shape[1]
    mask = pack.block_mask(window)
    found = attend(query, key, value, block_mask=mask, scale=scaling, enable_gqa=grouped)
    return found.transpose(1, 2).contiguous()


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pack: Pack,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """The whole row in one call of variable-length FlashAttention, which aligns a sequence's queries with the last of
    its keys. Further responses get a copy of their prompt's keys and values."""
    given = pack.sequences
    queries, keys, values = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
    if given.keys is not None:
        keys, values = keys.index_select(0, given.keys), values.index_select(0, given.keys)
    found = varlen_function()(
        queries,
        keys,
        values,
        given.query_starts,
        given.key_starts,
        given.most_queries,
        given.most_keys,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),  # to its left a token sees one less than the window
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return found.unsqueeze(0)


@cache
def varlen_function() -> Any:
    """torch's variable-length FlashAttention, as torch 2.13 calls it.

    Raises:
        CannotPack: this torch has none that takes windows.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        raise CannotPack("this version of torch has no variable-length attention") from None
    known = set(inspect.signature(varlen_attn).parameters)
    if not {"scale", "window_size"} <= known:
        raise CannotPack("this version of torch has no variable-length attention with windows")
    return varlen_attn if "enable_gqa" in known else partial(_ungrouped, varlen_attn)


def _ungrouped(
    attend: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *given: Any,
    enable_gqa: bool,
    **named: Any,
) -> Any:
    """Each query head with keys and values of its own, as older versions of torch want them."""
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    return attend(query, key, value, *given, **named)


def compute_dtype(given: torch.Tensor) -> torch.dtype:
    """The dtype that matrix products with a tensor have here: autocast's, else its own."""
    kind = given.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else given.dtype


def _plain() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@cache
def _compiled() -> Any:
    return torch.compile(_plain(), dynamic=True)
