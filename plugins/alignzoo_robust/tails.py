"""Weights of the highest and the lowest losses of a step; shared by ``cvar``, ``trim``, ``doro`` and ``chi2-dro``."""

from __future__ import annotations

import math

from alignzoo.lazy import torch


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
    sorted_losses, shares = losses[order], present[order]
    first = sorted_losses[0]
    centred = torch.where(shares > 0, sorted_losses - first, 0)  # differences: no loss of digits far from 0
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
    if not bool(possible.any()) or not bool(dual[best] < 0):  # no η below the highest loss does better than that loss
        weights = present if excess[-1] <= 0 else torch.where((losses == first) & (present > 0), present, 0)
        return weights / weights.sum()
    weights = torch.where(present > 0, present * (losses - first - eta[best]).clamp(min=0), 0)
    return weights / weights.sum()
