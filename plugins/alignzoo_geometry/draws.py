"""Noise, quantiles and draws over weights that may be sharded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alignzoo.distributed.shards import Rows, cut_like, like, local
from alignzoo.lazy import torch

EXACT_UP_TO = 2**24
"""Up to this many values :func:`kth_smallest` is exact; beyond that, it uses a sample of this size."""


def noise_like(weights: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """Independent standard normal noise with the weights' shapes, dtypes and placement."""
    return [cut_like(torch.randn(w.shape, generator=generator).to(w.dtype), w) for w in weights]


def kth_smallest(
    parts: Sequence[torch.Tensor],
    k: int,
    generator: torch.Generator,
    *,
    among: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """The k-th smallest (from 1) of all values in ``parts``, or of those where ``among`` is True, ``()``.

    Beyond :data:`EXACT_UP_TO` values, the same quantile of a sample of that size, drawn with replacement.
    """
    values = [local(part).flatten() for part in parts]
    if among is not None:
        values = [value[local(place).flatten()] for value, place in zip(values, among, strict=True)]
    rows = Rows(values, parts)
    number = sum(rows.counts)
    if number <= EXACT_UP_TO:
        return rows.all().kthvalue(k).values
    draws = [
        torch.randint(n, (math.ceil(EXACT_UP_TO * n / number),), generator=generator)
        if n
        else torch.empty(0, dtype=torch.int64)
        for n in rows.counts
    ]
    drawn = rows.drawn(draws)
    return drawn.kthvalue(max(1, round(k / number * len(drawn)))).values


def drawn_from(places: Sequence[torch.Tensor], number: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Masks that are True at ``number`` of the True places, drawn without replacement."""
    rows = Rows([torch.empty(int(local(place).sum())) for place in places], places)
    drawn = torch.zeros(sum(rows.counts), dtype=torch.bool)
    drawn[torch.randperm(len(drawn), generator=generator)[:number]] = True
    masks = []
    for place, mine in zip(places, rows.offsets(), strict=True):
        mask = torch.zeros_like(local(place))
        mask[local(place)] = drawn[mine].to(mask.device)
        masks.append(like(mask, place))
    return masks
