"""Memory of one device by part, at each moment of a step that may be the peak."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignzoo_estimate.micro_batch import Bytes

if TYPE_CHECKING:
    from alignzoo_estimate.estimate import Situation

GIB = 2.0**30
FP32, BF16 = 4, 2
FOUR_BIT = 0.5 + 1 / 64 + 4 / 64 / 256
"""Bytes of a weight in NF4: a one-byte scale per 64 weights, and an fp32 scale per 256 of those."""
CUDA_CONTEXT = 0.6 * GIB
"""Used by a process on a GPU before any tensor; assumed."""
CPU_KERNELS = 0.1 * GIB
"""Kept by the kernels of bf16 products on a CPU, for many shapes; measured."""
SLACK = 0.05
"""Allocator overhead as a share of the tensors' bytes; assumed."""


@dataclass(frozen=True)
class Moment:
    """The parts in bytes that exist at the same time; ``name`` says when."""

    name: str
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())


def moments(s: Situation, step: Bytes, ahead: float) -> list[Moment]:
    """The moments of an optimizer step, each with its parts.

    Args:
        step: memory of the heaviest micro-batch, from the simulation.
        ahead: memory of a forward pass of the reference before training.
    """
    standing = _standing(s)
    trained = s.trained * FP32 / s.shards
    embedding = s.shapes.embedding * FP32 * (s.settings.lora_r == 0)
    before = trained if s.micro_batches > 1 else 0.0
    head = before or (0.0 if s.shapes.tied else s.shapes.head * FP32 * (s.settings.lora_r == 0) / s.shards)
    if s.settings.quantize == "4bit":
        step = _without_copies(step, s)
    passing = {"geometry": standing["geometry"] + s.copies.passing * trained}
    copies = {"bf16 copies of weights": step.copies}
    kept = {"activations": step.kept - step.copies}
    gathered = {"gathered weights": _gathered(s)}
    found = [
        # Every rank loads all weights before sharding them.
        Moment(
            "loading",
            {"weights": standing["weights"] * s.shards, "working": 0.0 if s.hardware.cuda else s.model.stored},
        ),
        Moment("reference before training", {"weights": standing["weights"], "activations": ahead} | gathered),
        Moment(
            "forward",
            standing | passing | gathered | copies | {"gradients": before, "activations": step.forward - step.copies},
        ),
        Moment(
            "head",
            standing | passing | gathered | copies | kept | {"gradients": before, "head": step.head - step.kept},
        ),
        Moment(
            "backward",
            standing | passing | gathered | copies | kept | {"gradients": head, "working": step.layer - step.kept},
        ),
        Moment(
            "end of the backward",
            standing
            | passing
            | gathered
            | {"gradients": trained, "working": embedding * (before > 0 or s.shapes.tied)},
        ),
        Moment("optimizer step", standing | {"gradients": trained, "working": _updating(s)}),
    ]
    return [_with_overhead(moment, s) for moment in found]


def _without_copies(step: Bytes, s: Situation) -> Bytes:
    """A 4-bit base saves no weights for the backward pass; one map at a time is held in the compute dtype."""
    size = BF16 if s.settings.precision == "bf16" else FP32
    most = size * max((one.inputs * one.outputs for one in s.shapes.maps), default=0)
    forward, kept, head, layer = (n - step.copies for n in (step.forward, step.kept, step.head, step.layer))
    return Bytes(forward=forward + most, kept=kept, copies=0.0, head=head, layer=layer + most)


def _standing(s: Situation) -> dict[str, float]:
    """Memory that is always in use."""
    settings, whole = s.settings, s.shapes.total * float(FP32)
    base = whole
    if settings.quantize == "4bit":  # only the layers' linear maps are quantised
        maps = sum(one.parameters for one in s.shapes.maps)
        base = whole - maps * FP32 + maps * FOUR_BIT
    adapter = s.trained * FP32 if settings.lora_r else 0.0
    standing = {
        "weights": (base + adapter) / s.shards,
        "optimizer": s.optimizer.kept * s.trained * FP32 / s.shards,
        "reference": (whole / s.shards if s.keeps_reference else 0.0) + _head_inputs(s),
        "geometry": s.copies.kept * s.trained * FP32 / s.shards,
    }
    if s.hardware.sharding == "ddp":
        standing["buckets of gradients"] = s.trained * float(FP32)
    return standing


def _head_inputs(s: Situation) -> float:
    """Those of the reference at a step's response tokens, kept to compare the policy with."""
    size = BF16 if s.settings.precision == "bf16" else FP32
    return float(size * s.shapes.hidden * s.data.mean.response * s.rows_per_step) if s.statistics.kl else 0.0


def _gathered(s: Situation) -> float:
    """FSDP: the current layer, the prefetched next one, and everything outside the layers."""
    if s.shards == 1:
        return 0.0
    outside = s.shapes.total - s.shapes.layers - s.shapes.experts
    return FP32 * (outside + 2.0 * s.shapes.layer)


def _updating(s: Situation) -> float:
    numbers = s.trained if s.optimizer.at_once or s.settings.lora_r else s.shapes.largest
    return s.optimizer.working * numbers * FP32 / s.shards


def _with_overhead(moment: Moment, s: Situation) -> Moment:
    slack = SLACK * moment.total
    if s.hardware.cuda:
        over = {"allocator and context": slack + CUDA_CONTEXT}
    else:
        over = {"allocator": slack, "kernels": CPU_KERNELS * (s.settings.precision == "bf16")}
    return Moment(moment.name, {name: size for name, size in (moment.parts | over).items() if size > 0})
