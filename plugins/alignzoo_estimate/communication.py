"""What the ranks of a step exchange, and how long that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignzoo_estimate.hardware import OF_A_LINK, Hardware
from alignzoo_estimate.knobs import FP32

if TYPE_CHECKING:
    from alignzoo_estimate.situation import Situation


@dataclass(frozen=True)
class Traffic:
    """Bytes of a step.

    Attributes:
        gathered: whole tensors that are all-gathered from shards (FSDP2).
        scattered: whole gradients that are reduce-scattered (FSDP2).
        reduced: whole gradients that are all-reduced (DDP).
        host: between each GPU and host memory.
    """

    gathered: float = 0.0
    scattered: float = 0.0
    reduced: float = 0.0
    host: float = 0.0

    @property
    def exchanged(self) -> float:
        """Bytes that are sent around all ranks; an all-reduce sends them twice."""
        return self.gathered + self.scattered + 2 * self.reduced


def traffic(s: Situation, saved: float) -> Traffic:
    """The traffic of a mean step.

    FSDP2: each forward and each backward gathers the layers, the forward also the root group (embeddings, head), which
    stays until the backward ends; each micro-batch's gradients are reduce-scattered. DDP all-reduces the gradients of a
    pass once, with its last micro-batch.

    Args:
        saved: bytes of a micro-batch's activations that go to host memory and back.
    """
    trained = s.trained * float(FP32)
    host = 2.0 * saved * s.passes * s.micro_batches
    if s.hardware.sharding == "fsdp":
        forward = s.group_bytes("root") + s.group_bytes("layers")
        more = s.forwards + (1.0 if s.computes_reference else 0.0)
        gathered = s.micro_batches * (s.passes * (forward + s.group_bytes("layers")) + more * forward)
        scattered = s.micro_batches * s.passes * trained
        if s.offloads_weights:
            host += (gathered + scattered) / s.shards
        return Traffic(gathered=gathered, scattered=scattered, host=host)
    return Traffic(reduced=trained * s.passes if s.hardware.sharding == "ddp" else 0.0, host=host)


def seconds(moved: Traffic, hardware: Hardware) -> float | None:
    """Time of a step's traffic if nothing else went on; None if a rate that matters is unknown."""
    total, ranks, nodes = 0.0, hardware.devices, hardware.nodes
    if moved.exchanged:
        if hardware.link is None or (nodes > 1 and hardware.network is None):
            return None
        every = moved.exchanged * (ranks - 1) / ranks / hardware.link
        if nodes > 1 and hardware.network is not None:  # each GPU of a node brings in its share of the others' parts
            every = max(every, moved.exchanged * (nodes - 1) / nodes / hardware.per_node / hardware.network)
        total += every / OF_A_LINK
    if moved.host:
        if hardware.host is None:
            return None
        total += moved.host / hardware.host / OF_A_LINK
    return total
