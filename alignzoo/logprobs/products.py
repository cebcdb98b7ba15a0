"""Products with a head's weight whose operands are narrow and whose sums are fp32.

A product that gives bf16 rounds its sums once more: near 20, where the logits of likely tokens are, to multiples of
0.125. CUDA gives fp32 from bf16 operands (``out_dtype``). No product of a CPU does; there the logits that decide, of
the target and of the likeliest tokens, are computed again in fp32, and products are taken for a block of the vocabulary
at a time, whose operands and results stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import torch
import torch.nn.functional as F

BLOCK = 1 << 21
"""Weights in a block of the vocabulary on a CPU, 4 MiB in bf16."""
LIKELIEST = 16
"""Logits of a row that are computed again on a CPU; those of other tokens keep their rounding."""
GROUP = 64
"""Neighbouring tokens that are first compared by their largest logit alone."""


@dataclass(frozen=True)
class Head:
    """A linear head and how its products are computed; fp32 and fp64 as PyTorch does.

    Attributes:
        weight: ``(V, H)``; ``bias`` is ``(V,)``.
        dtype: of the products' operands.
        wide: of their results, fp32 or fp64.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    dtype: torch.dtype
    wide: torch.dtype

    @property
    def narrow(self) -> bool:
        """Whether operands have fewer digits than results."""
        return self.dtype.itemsize < 4

    @property
    def in_blocks(self) -> bool:
        """Whether products are taken for a block of the vocabulary at a time, from wide tensors."""
        return self.narrow and self.weight.device.type == "cpu"

    @property
    def of_gradients(self) -> torch.dtype:
        """The dtype in which gradients by logits are best computed for their products, which round them to
        :attr:`dtype` a block at a time."""
        return torch.float32 if self.in_blocks else self.dtype

    @cached_property
    def operand(self) -> torch.Tensor:
        """The whole weight in the dtype of the products."""
        return self.weight.to(self.dtype)

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states as products take them, rounded to their dtype."""
        return hidden.to(self.dtype)

    def logits(self, rows: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        """``(n, V)`` of :meth:`rows` ``(n, H)``; ``targets`` ``(n,)`` are those whose logits matter most."""
        if not self.narrow:
            bias = None if self.bias is None else self.bias.to(self.dtype)
            return F.linear(rows, self.operand, bias).to(self.wide)
        if not self.in_blocks:
            logits = _product(rows, self.operand.t())
        else:
            logits = rows.new_empty(len(rows), len(self.weight), dtype=torch.float32)
            for block, weight in self._blocks():
                logits[:, block] = rows @ weight.t()
            self._refine(logits, rows, targets)
        return (logits if self.bias is None else logits.add_(self.bias)).to(self.wide)

    def of_hidden(self, gradients: torch.Tensor) -> torch.Tensor:
        """``(n, H)`` gradients by hidden states, of those by logits ``(n, V)``."""
        if not self.narrow:
            return gradients @ self.operand
        if not self.in_blocks:
            return _product(gradients, self.operand)
        total = gradients.new_zeros(len(gradients), self.weight.shape[1], dtype=torch.float32)
        for block, weight in self._blocks():
            total += gradients[:, block].to(self.dtype) @ weight
        return total

    def added(self, total: torch.Tensor | None, gradients: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """``total + gradients.T @ rows``, in place: it is as large as the head."""
        left = gradients.t()
        if self.in_blocks:
            found = left.new_empty(len(left), rows.shape[1]) if total is None else total
            for block in self._parts():
                product = left[block].to(self.dtype) @ rows
                found[block] = product if total is None else found[block].add_(product)
            return found
        if total is None:
            return _product(left, rows) if self.narrow else left @ rows
        if not self.narrow:
            return total.addmm_(left, rows) if left.dtype == total.dtype else total.add_(left @ rows)
        if _adds_in_fp32(left.device, left.dtype):
            return torch.addmm(total, left, rows, out_dtype=torch.float32, out=total)
        return total.add_(_product(left, rows))

    def as_weight(self, total: torch.Tensor | None) -> torch.Tensor | None:
        """A total of :meth:`added` as the gradient by the weight."""
        return None if total is None else total.to(self.weight.dtype)

    def as_bias(self, total: torch.Tensor | None) -> torch.Tensor | None:
        """One of which ``rows`` was a column as the gradient by the bias."""
        return None if total is None or self.bias is None else total[:, 0].to(self.bias.dtype)

    def _parts(self) -> list[slice]:
        """Blocks of the vocabulary; one where tensors only stand for others, as in a simulation."""
        count, width = self.weight.shape
        size = max(1, BLOCK // width) if type(self.weight) in (torch.Tensor, torch.nn.Parameter) else count
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def _blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Blocks of the vocabulary with their weights."""
        for part in self._parts():
            yield part, self.weight[part].to(self.dtype)

    def _refine(self, logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor | None) -> None:
        """Replace the logits of the likeliest tokens and of the targets by sums that were never rounded."""
        tokens = _largest(logits, min(LIKELIEST, logits.shape[1]))
        if targets is not None:
            tokens = torch.cat([tokens, targets[:, None]], 1)
        weights = self.weight[tokens].to(self.dtype).float()
        logits.scatter_(1, tokens, torch.bmm(weights, rows.float()[:, :, None])[:, :, 0])


def _largest(logits: torch.Tensor, count: int) -> torch.Tensor:
    """``(n, count)`` columns of the largest of ``(n, V)``, in no order. They are in as many groups, those of the
    largest members. Sorting these takes less than half the time of sorting all."""
    groups = logits.shape[1] // GROUP
    if groups < count:
        return logits.topk(count, sorted=False).indices
    columns = torch.arange(logits.shape[1], device=logits.device)
    grouped, rest = columns[: groups * GROUP].view(groups, GROUP), columns[groups * GROUP :]
    largest = logits[:, : groups * GROUP].unflatten(1, (groups, GROUP)).amax(-1).topk(count, sorted=False).indices
    tried = torch.cat([grouped[largest].flatten(1), rest.expand(len(logits), -1)], 1)
    return tried.gather(1, logits.gather(1, tried).topk(count, sorted=False).indices)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """In fp32, of narrow operands."""
    if _gives_fp32(left.device, left.dtype):
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


@cache
def _gives_fp32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products on the device give fp32 from narrow operands, as PyTorch has it from 2.8 on for CUDA."""
    ones = torch.ones(16, 16, device=device, dtype=dtype)
    try:
        return bool((torch.mm(ones, ones, out_dtype=torch.float32) == 16).all())
    except (RuntimeError, TypeError):  # NotImplementedError is one
        return False


@cache
def _adds_in_fp32(device: torch.device, dtype: torch.dtype) -> bool:
    """The same of products that are added to fp32 in place."""
    ones = torch.ones(16, 16, device=device, dtype=dtype)
    total = torch.full((16, 16), 2.0**-12, device=device)
    try:
        torch.addmm(total, ones, ones, out_dtype=torch.float32, out=total)
        return bool((total == 16 + 2.0**-12).all())
    except (RuntimeError, TypeError):
        return False
