"""From a chunk of logits to log-probs, entropies and the gradient by the logits: by PyTorch, a pass for each operation,
or by one kernel (:mod:`alignzoo.logprobs.softmax_kernel`) where a trial on the device favours it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import torch


@dataclass(frozen=True)
class Shape:
    """A model's transformation of its logits: ``softcap · tanh(scale · x / softcap)``."""

    scale: float = 1.0
    softcap: float | None = None

    def applied(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits from raw ones (overwritten), and their derivative by the raw ones where that is no plain number."""
        logits = raw.mul_(self.scale) if self.scale != 1.0 else raw
        if self.softcap is None:
            return logits, None
        logits = logits.div_(self.softcap).tanh_()
        slope = (1 - logits.square()).mul_(self.scale)
        return logits.mul_(self.softcap), slope

    def sloped(self, gradient: torch.Tensor, slope: torch.Tensor | None) -> torch.Tensor:
        """The gradient by raw logits from that by logits, overwritten."""
        if slope is not None:
            return gradient.mul_(slope)
        return gradient.mul_(self.scale) if self.scale != 1.0 else gradient


PLAIN = Shape()


class OfLogits(NamedTuple):
    """What ``(n, V)`` logits say of n targets: log-probs and entropies ``(n,)`` in nats, and the gradient ``(n, V)`` by
    the raw logits, of what :class:`ByLogits` says."""

    logps: torch.Tensor
    entropies: torch.Tensor | None
    gradient: torch.Tensor | None


class ByLogits(Protocol):
    """How to compute :class:`OfLogits`."""

    def __call__(
        self,
        raw: torch.Tensor,
        targets: torch.Tensor,
        shape: Shape = PLAIN,
        *,
        entropy: bool = False,
        gradient: torch.dtype | None = None,
        cotangents: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> OfLogits:
        """
        Args:
            raw: ``(n, V)`` fp32 or fp64, contiguous; may be overwritten.
            targets: ``(n,)`` int64.
            gradient: its dtype, if it is asked for.
            cotangents: ``(n,)`` each, of the log-probs and the entropies; without, the gradient is that of each
                log-prob alone.
        """


def by_torch(
    raw: torch.Tensor,
    targets: torch.Tensor,
    shape: Shape = PLAIN,
    *,
    entropy: bool = False,
    gradient: torch.dtype | None = None,
    cotangents: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> OfLogits:
    """As :class:`ByLogits` says, on any device, in fp32 or fp64."""
    logits, slope = shape.applied(raw)
    own = log_softmax_(logits)
    logps = own.gather(-1, targets[:, None])[:, 0]
    if cotangents is not None:
        probabilities = own.exp()
        entropies = -(probabilities * own).sum(-1)
        of_logps, of_entropies = (cotangent[:, None] for cotangent in cotangents)
        found = own.add_(entropies[:, None]).mul_(-of_entropies).sub_(of_logps).mul_(probabilities)
        found[torch.arange(len(targets), device=targets.device), targets] += cotangents[0]
        return OfLogits(logps, entropies, shape.sloped(found, slope).to(gradient))
    only = -(own.exp() * own).sum(-1) if entropy else None
    if gradient is None:
        return OfLogits(logps, only, None)
    return OfLogits(logps, only, shape.sloped(one_hot_less(own.exp_(), targets), slope).to(gradient))


def log_softmax_(logits: torch.Tensor) -> torch.Tensor:
    """Log-probs in the place of logits: fresh memory costs a CPU more than the arithmetic. On a GPU, beside them."""
    return torch.log_softmax(logits, -1, out=logits if logits.device.type == "cpu" else None)


def one_hot_less(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """One-hot less softmax, the gradient of the targets' log-probs by the logits; overwrites the probabilities."""
    gradient = probabilities.neg_()
    gradient[torch.arange(len(targets), device=targets.device), targets] += 1
    return gradient


@dataclass(frozen=True)
class Choice:
    """A way for a device, and why it was chosen."""

    way: ByLogits
    why: str


def chosen(device: torch.device, gradient: torch.dtype) -> Choice:
    """The way for fp32 logits on a device whose gradients are of this dtype; tried once a process, on a GPU."""
    if device.type != "cuda":
        return Choice(by_torch, "PyTorch: the kernel is for CUDA")
    if find_spec("triton") is None:
        return Choice(by_torch, "PyTorch: Triton is not installed")
    return _tried(device, gradient)


TRIAL_ROWS, TRIAL_VOCABULARY = 256, 1 << 16
"""A chunk of 64 MiB: as large as those of a step, so that launching a kernel does not count."""


@cache
def _tried(device: torch.device, gradient: torch.dtype) -> Choice:
    try:
        from alignzoo.logprobs.softmax_kernel import by_kernel

        with torch.no_grad(), torch.cuda.device(device):
            if why := difference(by_kernel, device, gradient):
                return Choice(by_torch, f"PyTorch: the kernel differs in {why}")
            kernel, plain = (_milliseconds(way, device, gradient) for way in (by_kernel, by_torch))
    except Exception as error:  # a compiler's, a driver's, the kernel's: training continues without it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Choice(by_torch, f"PyTorch: the kernel does not run: {reason}")
    times = f"{kernel:.2f} ms, PyTorch {plain:.2f} ms a chunk"
    return Choice(by_torch, f"PyTorch: kernel {times}") if kernel > plain else Choice(by_kernel, f"kernel: {times}")


def difference(
    way: ByLogits, device: torch.device, gradient: torch.dtype, *, rows: int = 16, vocabulary: int = 5003
) -> str:
    """What a way computes otherwise than PyTorch in fp64 does, beyond rounding; empty if nothing."""
    draw = torch.Generator().manual_seed(0)
    raw = torch.randn(rows, vocabulary, generator=draw) * 5
    targets, of_both = torch.randint(vocabulary, (rows,), generator=draw), torch.randn(2, rows, generator=draw)
    raw[torch.arange(rows), targets] += torch.linspace(0, 30, rows)  # from unlikely to all but certain
    bounds = {"logps": (1e-5, 1e-4), "entropies": (1e-5, 1e-4), "gradient": (torch.finfo(gradient).eps + 1e-4, 1e-5)}
    for shape in (PLAIN, Shape(0.5), Shape(1.0, 30.0), Shape(2.0, 20.0)):
        for cotangents in (None, (of_both[0], of_both[1])):
            there = None if cotangents is None else (of_both[0].to(device), of_both[1].to(device))
            wide = None if cotangents is None else (of_both[0].double(), of_both[1].double())
            found = way(
                raw.clone().to(device), targets.to(device), shape, entropy=True, gradient=gradient, cotangents=there
            )
            expected = by_torch(raw.double(), targets, shape, entropy=True, gradient=torch.float64, cotangents=wide)
            for name, (relative, absolute) in bounds.items():
                one, other = (getattr(values, name).cpu().double() for values in (found, expected))
                if not torch.allclose(one, other, rtol=relative, atol=absolute):
                    return f"{name} under {shape}"
    return ""


def _milliseconds(way: ByLogits, device: torch.device, gradient: torch.dtype) -> float:
    """Of a chunk's log-probs and gradient, the best of five after one that is not timed."""
    raw = torch.linspace(-10, 10, TRIAL_ROWS * TRIAL_VOCABULARY, device=device).view(TRIAL_ROWS, TRIAL_VOCABULARY)
    targets = torch.zeros(TRIAL_ROWS, dtype=torch.int64, device=device)
    best = float("inf")
    for _ in range(6):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        way(raw, targets, gradient=gradient)
        ended.record()
        ended.synchronize()
        best = min(best, began.elapsed_time(ended))
    return best
