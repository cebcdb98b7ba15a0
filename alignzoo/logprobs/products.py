"""Products with a head's weight whose operands are narrow and whose sums and results are fp32.

A product that gives bf16 rounds its sums once more: near 20, where the logits of likely tokens are, to multiples of
0.125. CUDA gives fp32 from bf16 operands (``out_dtype``). On a CPU oneDNN does, of fp32 operands that it rounds on the
way: the weights of a run under autocast are that as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property

import torch
import torch.nn.functional as F


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
    def of_gradients(self) -> torch.dtype:
        """The dtype in which gradients by logits are kept for their products."""
        return self.dtype if not self.narrow or self.weight.device.type != "cpu" else torch.float32

    @cached_property
    def operand(self) -> torch.Tensor:
        """The weight in the dtype its products take it in."""
        return self.weight.to(self.of_gradients)

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states in the dtype their products take them in, rounded to the narrow one."""
        return hidden.to(self.dtype).to(self.of_gradients)

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """``(n, V)`` of :meth:`rows` ``(n, H)``."""
        if not self.narrow:
            bias = None if self.bias is None else self.bias.to(self.dtype)
            return F.linear(rows, self.operand, bias).to(self.wide)
        logits = self._product(rows, self.operand.t())
        return (logits if self.bias is None else logits.add_(self.bias)).to(self.wide)

    def of_hidden(self, gradients: torch.Tensor) -> torch.Tensor:
        """``(n, H)`` gradients by hidden states, of those by logits ``(n, V)``."""
        return self._product(gradients, self.operand)

    def added(self, total: torch.Tensor | None, gradients: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """``total + gradients.T @ rows``, in place: it is as large as the head."""
        left = gradients.t()
        if total is None:
            return self._product(left, rows)
        if not self.narrow:
            return total.addmm_(left, rows) if left.dtype == total.dtype else total.add_(left @ rows)
        if self.of_gradients == torch.float32:
            with _rounding_operands(self.dtype):
                return total.addmm_(left, rows)
        if _adds_in_fp32(left.device, left.dtype):
            return torch.addmm(total, left, rows, out_dtype=torch.float32, out=total)
        return total.add_(self._product(left, rows))

    def as_weight(self, total: torch.Tensor | None) -> torch.Tensor | None:
        """A total of :meth:`added` as the gradient by the weight."""
        return None if total is None else total.to(self.weight.dtype)

    def as_bias(self, total: torch.Tensor | None) -> torch.Tensor | None:
        """One of which ``rows`` was a column as the gradient by the bias."""
        return None if total is None or self.bias is None else total[:, 0].to(self.bias.dtype)

    def _product(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if not self.narrow:
            return left @ right
        if self.of_gradients == torch.float32:
            with _rounding_operands(self.dtype):
                return left @ right
        if _gives_fp32(left.device, left.dtype):
            return torch.mm(left, right, out_dtype=torch.float32)
        return left.float() @ right.float()


@contextmanager
def _rounding_operands(dtype: torch.dtype) -> Iterator[None]:
    """Inside, oneDNN may round the operands of fp32 products to bf16; sums and results stay fp32. Without bf16 units
    it does not, and from 2.9 on PyTorch can say so for one backend alone."""
    products = getattr(torch.backends.mkldnn, "matmul", None)
    if products is None or dtype != torch.bfloat16:
        yield
        return
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


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
