"""Weights of the highest and the lowest losses of a step; shared by ``cvar``, ``trim``, ``doro``, ``chi2-dro``
and ``wdpo-winsor``."""

from __future__ import annotations

import math

from alignzoo.lazy import torch

NEAR = 1e-6
"""Losses closer than this, relative to the largest if that is above 1, count as equal: of the same pairs in other
micro-batches, rounding moves them as far in fp32. In a run's first step DPO's are all equal."""


def with_ties(losses: torch.Tensor) -> torch.Tensor:
    """The losses ``(N,)``, detached, those that are nearly equal made equal."""
    losses = losses.detach()
    falling, order = torch.sort(losses, descending=True)
    apart = torch.ones_like(falling, dtype=torch.bool)
    apart[1:] = falling[:-1] - falling[1:] > NEAR * losses.abs().max().clamp(min=1)
    firsts = falling[apart][apart.cumsum(0) - 1]
    return torch.empty_like(losses).index_copy(0, order, firsts)


def count_of(share: float, count: int) -> int:
    """⌈share·N⌉; a product that misses a whole number by rounding is that number."""
    return math.ceil(share * count - 1e-9)


def highest(losses: torch.Tensor, count: int) -> torch.Tensor:
    """``(N,)``: 1 for the ``count`` highest losses, 0 for the others; those that tie for the last places share them."""
    if count <= 0:
        return torch.zeros_like(losses)
    least = torch.topk(losses, count).values[-1]
    above, ties = (losses > least).to(losses.dtype), (losses == least).to(losses.dtype)
    return above + ties * ((count - above.sum()) / ties.sum())


def without_highest(losses: torch.Tensor, share: float) -> torch.Tensor:
    """``(N,)``: 0 for the ⌈share·N⌉ highest losses, of which one at least stays, and 1 for the others."""
    return 1 - highest(losses, min(count_of(share, len(losses)), len(losses) - 1))


def tail_mean(losses: torch.Tensor, alpha: float, present: torch.Tensor) -> torch.Tensor:
    """Weights ``(N,)`` of the mean over the ⌈α·n⌉ highest losses of those present, n in number.

    Args:
        present: ``(N,)``, the share of each value that takes part, from :func:`without_highest`.
    """
    left = losses.masked_fill(present == 0, -torch.inf)
    count = count_of(alpha, round(float(present.sum())))
    order = torch.argsort(left, descending=True)
    before = present[order].cumsum(0) - present[order]
    least = left[order][before < count - 1e-9][-1]
    above = torch.where(left > least, present, 0)
    ties = torch.where(left == least, present, 0)
    return (above + ties * ((count - above.sum()) / ties.sum())) / count


def worst_case(losses: torch.Tensor, alpha: float, present: torch.Tensor) -> torch.Tensor:
    """Weights ``(N,)``, summing to 1, of the largest mean over reweightings in a χ² ball around the uniform one.

    The dual min_η C·√(mean (ℓ − η)₊²) + η with C² = 1 + (1/α − 1)² is solved exactly: if the k highest losses are those
    above η, then η = μ − √(v/(C²k/n − 1)), where μ and v are their mean and variance; the true k is the one whose η has
    the least dual value, which is convex in η. The weights are (ℓ − η)₊, scaled.

    Args:
        present: ``(N,)``, the share of each value that takes part.
    """
    size, total = 1 + (1 / alpha - 1) ** 2, present.sum()
    order = torch.argsort(losses.masked_fill(present == 0, -torch.inf), descending=True)
    first, least = losses[order][0], torch.where(present > 0, losses, torch.inf).min()
    if bool(first == least):
        return present / total
    # Weights depend on neither shift nor scale; differences of unit size lose no digits and square without underflow.
    scaled = torch.where(present > 0, (losses - first) / (first - least), 0)
    centred, shares = scaled[order], present[order]
    within = shares.cumsum(0)
    mean = (shares * centred).cumsum(0) / within
    lower = torch.tril(shares.expand(len(shares), -1))
    variance = (lower * (centred - mean[:, None]).square()).sum(1) / within
    excess = size * within / total - 1
    possible = (excess > 0) & (variance > 0) & (shares > 0)
    eta = mean - (variance / excess.where(possible, torch.ones_like(excess))).sqrt()
    over = (centred - eta[:, None]).clamp(min=0)
    dual = (size * (shares * over.square()).sum(1) / total).sqrt() + eta
    dual = dual.where(possible, torch.full_like(dual, torch.inf))
    best = torch.argmin(dual)
    if not bool(possible.any()) or not bool(dual[best] < 0):  # the highest loss, or what ties with it
        weights = present if excess[-1] <= 0 else torch.where(scaled >= -8 * torch.finfo(scaled.dtype).eps, present, 0)
        return weights / weights.sum()
    weights = present * (scaled - eta[best]).clamp(min=0)
    return weights / weights.sum()
