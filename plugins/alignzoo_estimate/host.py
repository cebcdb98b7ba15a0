"""Host memory of a node whose GPUs train: what the processes load, and what they keep there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignzoo_estimate.memory import GIB, gradients, saved_activations, standing, weights
from alignzoo_estimate.micro_batch import Bytes

if TYPE_CHECKING:
    from alignzoo_estimate.situation import Situation

PROCESS = 3.0 * GIB
"""A rank's Python, torch and CUDA; assumed."""


@dataclass(frozen=True)
class Host:
    """Bytes of one node, over all its ranks.

    Attributes:
        loading: while weights are read; the files themselves, which the system may drop, are not counted.
        training: from then on.
    """

    loading: float
    training: float

    @property
    def peak(self) -> float:
        """The larger one."""
        return max(self.loading, self.training)


def host(s: Situation, step: Bytes) -> Host | None:
    """Host memory of each node; None for a run on a CPU, where it is the device's."""
    if not s.hardware.cuda:
        return None
    here = sum(standing(s).values()) + (1 + s.added.passing) * gradients(s) if s.offloads_weights else 0.0
    training = PROCESS + here + saved_activations(s, step)
    return Host(s.hardware.per_node * (PROCESS + _read(s)), s.hardware.per_node * training)


def _read(s: Situation) -> float:
    """A rank's weights on their way to the device: FSDP2 reads tensor by tensor, 4-bit weights go there directly."""
    if s.hardware.sharding == "fsdp":
        return s.base_bytes * s.shapes.largest + (weights(s) / s.shards if s.offloads_weights else 0.0)
    return 0.0 if s.settings.quantize == "4bit" else weights(s)
