"""The devices of a run, and how they are connected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sharding = Literal["none", "ddp", "fsdp"]
ON_GPU, ON_CPU = 0.4, 0.6
"""Assumed utilisation of the matrix-product rate in a step."""
OF_A_LINK = 0.8
"""Assumed utilisation of a link's rate in a collective operation or a copy."""


@dataclass(frozen=True)
class Hardware:
    """The hardware of a run.

    Attributes:
        devices: GPUs of all nodes together, or 1 for a CPU.
        memory: of each, in bytes; None if unknown.
        rate: FLOP/s of matrix products of each; None if unknown.
        nodes: machines that the devices are spread over evenly.
        link: bytes/s between the GPUs of a node, one way; None if unknown.
        network: bytes/s of each GPU to other nodes, one way; None if unknown.
        host: bytes/s of each GPU from and to host memory, one way; None if unknown.
    """

    devices: int
    cuda: bool
    memory: float | None
    rate: float | None
    sharding: Sharding
    nodes: int = 1
    link: float | None = None
    network: float | None = None
    host: float | None = None

    @property
    def per_node(self) -> int:
        """Devices of each node."""
        return self.devices // self.nodes

    @property
    def utilisation(self) -> float:
        """Assumed share of :attr:`rate` that a step reaches."""
        return ON_GPU if self.cuda else ON_CPU
