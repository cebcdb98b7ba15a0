"""Links x ↦ f'(e^x) of f-divergences, where x = log π/π_ref in nats: stable, elementwise, differentiable.

An exponential beyond e^40 continues along its tangent. Up to there the links are exact; beyond, where the exponential
itself would overflow fp32 (or its square, in the norm of the gradient), values still rise and gradients stay finite
and do not vanish, as they would under a clamp.
"""

from __future__ import annotations

import math

from alignzoo.lazy import F, torch

LARGEST = 40.0
"""Nats beyond which an exponential is replaced by its tangent."""


def exp(x: torch.Tensor) -> torch.Tensor:
    """e^x, beyond :data:`LARGEST` its tangent there."""
    capped = x.clamp(max=LARGEST)
    return capped.exp() * (1 + x - capped)


def expm1(x: torch.Tensor) -> torch.Tensor:
    """e^x − 1, exact near 0; beyond :data:`LARGEST` its tangent there."""
    capped = x.clamp(max=LARGEST)
    return capped.expm1() + capped.exp() * (x - capped)


def reverse_kl(x: torch.Tensor) -> torch.Tensor:
    """x, up to a constant: f(u) = u·log u."""
    return x


def forward_kl(x: torch.Tensor) -> torch.Tensor:
    """−e^{−x}: f(u) = −log u."""
    return -exp(-x)


def jensen_shannon(x: torch.Tensor) -> torch.Tensor:
    """log 2 + log σ(x): f(u) = u·log u − (u + 1)·log((u + 1)/2)."""
    return F.logsigmoid(x) + math.log(2)


def alpha_divergence(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """(1 − e^{−αx})/α, from reverse KL (α → 0) to forward KL (α = 1)."""
    return -expm1(-alpha * x) / alpha


def chi_squared_kl(x: torch.Tensor) -> torch.Tensor:
    """e^x + x: f(u) = ½(u − 1)² + u·log u, mixed χ² and KL."""
    return exp(x) + x


def squared_log(x: torch.Tensor) -> torch.Tensor:
    """x·e^{−x}: f(u) = ½·(log u)². It rises up to x = 1 and falls from there."""
    return x * exp(-x)
