"""Memory of one device by part, at each moment of a step that may be the peak."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from alignzoo_estimate.knobs import BF16, FP32
from alignzoo_estimate.micro_batch import Bytes

if TYPE_CHECKING:
    from alignzoo_estimate.situation import Situation

GIB = 2.0**30
FOUR_BIT = 0.5 + 1 / 64 + 4 / 64 / 256
"""Bytes of a weight in NF4: a one-byte scale per 64 weights, and an fp32 scale per 256 of those."""
CUDA_CONTEXT = 0.6 * GIB
"""Used by a process on a GPU before any tensor; assumed."""
CPU_KERNELS = 0.1 * GIB
"""Kept by the kernels of bf16 products on a CPU, for many shapes; measured. A heap that holds more has room for it."""
SLACK = 0.05
"""A GPU allocator's overhead as a share of the tensors' bytes; assumed."""
RETAINED = 0.6
"""Share of the blocks freed in a forward pass that glibc holds beside the live ones; fitted to four runs of a llama of
30 million weights with the heap as :mod:`alignzoo.base.heap` sets it, in which it was 0.5 to 0.87."""
HELD = "freed, held by malloc"
GIVES_BACK = "MALLOC_MMAP_THRESHOLD_"
"""Environment variable: with a low threshold, glibc holds nothing."""
IN_FLIGHT = 2
"""Layers whose weights, gradients or activations are on the device at a time where they are gathered, scattered or
offloaded: the current one, and the one that is being moved."""


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
    kept = standing(s)
    here = {} if s.offloads_weights else kept
    if s.gathers_bf16:
        step = step.less(0.0, step.copies)
    if s.settings.quantize == "4bit":
        step = _without_copies(step, s)
    if s.offloads_activations:
        step = step.less(saved_activations(s, step))
    trained = gradients(s)
    before, last = (0.0, 0.0) if s.offloads_weights else (trained * (s.micro_batches > 1), trained)
    passing = {} if s.offloads_weights else {"geometry": kept["geometry"] + s.added.passing * trained}
    weights = {"weights": here.get("weights", 0.0)} | _gathered(s)
    running = here | passing | _gathered(s) | {"gradients": before, HELD: held_free(s, step)}
    forward = running | {"bf16 copies of weights": step.copies, "activations": step.activations}
    backward = forward | {"bf16 copies of weights": step.saved_copies}
    saved = step.activations + step.saved_copies
    found = [
        Moment("loading", _loading(s, here.get("weights", 0.0))),
        Moment("reference before training", weights | {"activations": ahead}),
        Moment("forward", forward | {"activations": step.forward - step.copies}),
        Moment("head", forward | {"head": step.head - step.kept}),
        Moment("backward of the head", backward | {"head": step.turn - saved} | _whole(s, "head")),
        Moment(
            "backward",
            backward
            | {"gradients": before or _head_gradient(s), "working": step.layer - saved}
            | _whole(s, "backward"),
        ),
        Moment(
            "end of the backward",
            here | passing | _gathered(s) | {"gradients": last, "working": _embedding(s, before)} | _whole(s, "end"),
        ),
        Moment("optimizer step", here | {"gradients": last, "working": _updating(s)}),
    ]
    return [_with_overhead(moment, s) for moment in found]


def saved_activations(s: Situation, step: Bytes) -> float:
    """Bytes of a micro-batch's activations that are in host memory."""
    if not s.offloads_activations:
        return 0.0
    return step.activations * (1 - min(1.0, IN_FLIGHT / max(1, s.shapes.depth)))


def _without_copies(step: Bytes, s: Situation) -> Bytes:
    """A 4-bit base saves no weights for the backward pass; one map at a time is held in the compute dtype."""
    size = BF16 if s.bf16 else FP32
    most = size * max((one.inputs * one.outputs for one in s.shapes.maps), default=0)
    rest = step.less(0.0, step.copies)
    return replace(rest, forward=rest.forward + most, layer=rest.layer + most)


def weights(s: Situation) -> float:
    """Bytes of all weights of the policy, not sharded."""
    whole = s.shapes.total * s.base_bytes
    if s.settings.quantize == "4bit":  # only the layers' linear maps are quantised
        whole -= sum(one.parameters for one in s.shapes.maps) * (s.base_bytes - FOUR_BIT)
    return whole + (s.trained * FP32 if s.settings.lora_r else 0.0)


def gradients(s: Situation) -> float:
    """Bytes of a rank's gradients."""
    return s.trained * FP32 / s.shards


def standing(s: Situation) -> dict[str, float]:
    """Memory of a rank that is always in use."""
    whole = s.shapes.total * float(FP32)
    parts = {
        "weights": weights(s) / s.shards,
        "optimizer": s.optimizer.kept * gradients(s),
        "reference": (whole / s.shards if s.keeps_reference else 0.0) + _head_inputs(s),
        "geometry": s.added.kept * gradients(s),
    }
    if s.hardware.sharding == "ddp":
        parts["buckets of gradients"] = s.trained * float(FP32)
    return parts


def _loading(s: Situation, stands: float) -> dict[str, float]:
    """FSDP2 cuts one whole tensor at a time into shards; on a CPU, the files are mapped beside the weights."""
    if s.hardware.sharding == "fsdp":
        return {"weights": stands, "working": s.base_bytes * s.shapes.largest}
    return {"weights": stands, "working": 0.0 if s.hardware.cuda else s.model.stored}


def held_free(s: Situation, step: Bytes) -> float:
    """Freed memory that glibc holds on a CPU."""
    return 0.0 if s.hardware.cuda or GIVES_BACK in os.environ else step.passed * RETAINED


def _head_inputs(s: Situation) -> float:
    """Those of the reference at a step's response tokens, kept to compare the policy with."""
    size = BF16 if s.bf16 else FP32
    return float(size * s.shapes.hidden * s.data.mean.response * s.rows_per_step) if s.statistics.kl else 0.0


def _gathered(s: Situation) -> dict[str, float]:
    """FSDP2: the current layer, the prefetched next one, and everything outside the layers."""
    if s.hardware.sharding != "fsdp":
        return {}
    adapter = s.trained * FP32 / max(1, s.shapes.depth) if s.settings.lora_r else 0.0
    layer = (BF16 if s.gathers_bf16 else s.base_bytes) * s.shapes.layer + adapter
    staged = IN_FLIGHT * layer / s.shards if s.offloads_weights else 0.0
    return {"gathered weights": s.group_bytes("root") + IN_FLIGHT * layer + staged}


def _whole(s: Situation, moment: str) -> dict[str, float]:
    """FSDP2: gradients of whole weights until they are scattered, each with a copy in the exchange's buffer. Those of
    the root group wait for the end of the backward."""
    if s.hardware.sharding != "fsdp":
        return {}
    if s.settings.lora_r:
        return {"whole gradients": IN_FLIGHT * s.trained * FP32 / max(1, s.shapes.depth)} if moment != "head" else {}
    head = FP32 * (s.shapes.embedding if s.shapes.tied else s.shapes.head)
    sizes = FP32 + (BF16 if s.gathers_bf16 else FP32)  # what is sent, and what comes after it
    layers = {"head": 0.0, "backward": float(sizes * s.shapes.layer), "end": 0.0}
    root = {"head": 0.0, "backward": head, "end": 2 * s.group_bytes("root")}
    return {"whole gradients": layers[moment] + root[moment]}


def _head_gradient(s: Situation) -> float:
    """That of a head of its own, which the backward computes first."""
    own = not (s.shapes.tied or s.settings.lora_r or s.hardware.sharding == "fsdp")
    return float(s.shapes.head * FP32) if own else 0.0


def _embedding(s: Situation, before: float) -> float:
    """The embeddings' gradient, where it is added to another one."""
    if s.settings.lora_r or s.hardware.sharding == "fsdp":
        return 0.0
    return float(s.shapes.embedding * FP32) if before > 0 or s.shapes.tied else 0.0


def _updating(s: Situation) -> float:
    if s.offloads_weights:
        return 0.0
    numbers = s.trained if s.optimizer.at_once or s.settings.lora_r else s.shapes.largest
    return s.optimizer.working * numbers * FP32 / s.shards


def _with_overhead(moment: Moment, s: Situation) -> Moment:
    if s.hardware.cuda:
        over = {"allocator and context": SLACK * moment.total + CUDA_CONTEXT}
    else:
        over = {"kernels": CPU_KERNELS * (s.bf16 and GIVES_BACK in os.environ)}
    return Moment(moment.name, {name: size for name, size in (moment.parts | over).items() if size > 0})
