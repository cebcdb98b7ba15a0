"""Perturb selected neurons without modifying the weights.

For a linear map with selected inputs S, ``y += x[..., S] Δᵀ`` with Δ of shape ``(hidden, |S|)``: the gradient of Δ at
0 *is* the gradient of those columns of the weight, and Δ = ε *is* the perturbation W[:, S] + ε. Nothing needs to be
restored, so frozen, quantised and adapted base layers need no special treatment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from alignzoo.distributed.shards import computes_on
from alignzoo.geometry.projections import Projection
from alignzoo.geometry.survival import Survival
from alignzoo.logprobs.compiling import uncompiled


class SideBranches:
    """One branch per map with selected neurons; they exist only inside :meth:`attached`.

    Args:
        projections: the maps to perturb.
        selected: int64 indices of each map's selected inputs; maps with none get no branch.
    """

    def __init__(self, projections: Sequence[Projection], selected: Sequence[torch.Tensor]) -> None:
        self._branches = [
            _Branch(projection, index)
            for projection, index in zip(projections, selected, strict=True)
            if len(index) > 0
        ]
        self._survival = Survival()

    @property
    def deltas(self) -> list[torch.Tensor]:
        """The Δ of every branch, fp32 (fp64 for an fp64 model) leaves of shape ``(hidden, |S|)``."""
        return [branch.delta for branch in self._branches]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the model's forward includes the branches, at Δ = 0 and requiring gradients. Afterwards, even after
        an exception, they are removed."""
        self._survival = Survival()
        for branch in self._branches:
            branch.open(self._survival)
        try:
            with uncompiled():  # they are hooks
                yield
        finally:
            for branch in self._branches:
                branch.close()

    def perturb(self, epsilons: Sequence[torch.Tensor]) -> None:
        """Set Δ = ε. From here on, a backward pass adds the gradient at the perturbed point to :attr:`gradients`."""
        for branch, epsilon in zip(self._branches, epsilons, strict=True):
            branch.move(epsilon)

    @property
    def gradients(self) -> list[torch.Tensor]:
        """The gradient of the selected weights, accumulated on this rank by backward passes since :meth:`perturb`."""
        return [
            torch.zeros_like(branch.delta) if branch.delta.grad is None else branch.delta.grad
            for branch in self._branches
        ]

    def survival(self) -> float:
        """Share of the perturbation that reached the forward since :meth:`perturb`: how much of the branches' exact
        output is present in the layers' outputs as stored."""
        return self._survival.share()


class _Branch:
    def __init__(self, projection: Projection, index: torch.Tensor) -> None:
        vectors = projection.value_vectors()
        self.module = projection.module
        device = computes_on(projection.weight)
        self.index = index.to(device)
        self.everything = len(index) == projection.inner
        dtype = torch.float64 if vectors.dtype == torch.float64 else torch.float32
        self.delta = torch.zeros(projection.hidden, len(index), dtype=dtype, device=device)
        self.handle: Any = None
        self.moved = False

    def open(self, survival: Survival) -> None:
        self.delta = torch.zeros_like(self.delta).requires_grad_(True)
        self.moved, self.survival = False, survival
        self.handle = self.module.register_forward_hook(self._add)

    def move(self, epsilon: torch.Tensor) -> None:
        # A new tensor instead of an in-place change: autocast may hold a bf16 copy of the old one.
        self.delta = epsilon.detach().to(self.delta.dtype).clone().requires_grad_(True)
        self.moved = True

    def close(self) -> None:
        self.handle.remove()
        self.delta = torch.zeros_like(self.delta, requires_grad=False)

    def _add(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        inner = inputs[0] if self.everything else inputs[0].index_select(-1, self.index)
        autocast = torch.is_autocast_enabled(inner.device.type)
        branch = F.linear(inner if autocast else inner.to(self.delta.dtype), self.delta).to(self.delta.dtype)
        total = output.to(self.delta.dtype) + branch
        if not autocast:  # under autocast any dtype will do; rounding would lose what is below the output's grid
            total = total.to(output.dtype)
        if self.moved:
            arrived = total.detach().to(branch.dtype) - output.detach().to(branch.dtype)
            self.survival.add(arrived, branch.detach())
        return total
