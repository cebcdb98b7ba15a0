"""GPUs by name: memory, peak rates of dense matrix products and links, from the vendor's data sheets (docs/plan.md)."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2.0**30
GB, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Card:
    """One kind of GPU.

    Attributes:
        memory: bytes that torch can allocate, which is less than the name says.
        bf16, fp32: peak FLOP/s of dense matrix products; fp32 without TF32, as torch multiplies by default.
        link: bytes/s to the other GPUs of its node, one way.
        network: bytes/s between nodes, each GPU's share, one way; that of common servers, assumed.
        host: bytes/s from and to host memory, one way.
    """

    memory: float
    bf16: float
    fp32: float
    link: float
    network: float
    host: float

    def rate(self, *, bf16: bool) -> float:
        """Peak FLOP/s in a compute dtype."""
        return self.bf16 if bf16 else self.fp32


CARDS = {
    "h200": Card(139.7 * GIB, 989 * TERA, 67 * TERA, 450 * GB, 50 * GB, 64 * GB),
    "h100": Card(79.1 * GIB, 989 * TERA, 67 * TERA, 450 * GB, 50 * GB, 64 * GB),
    "a100-80": Card(79.1 * GIB, 312 * TERA, 19.5 * TERA, 300 * GB, 25 * GB, 32 * GB),
    "a100-40": Card(39.4 * GIB, 312 * TERA, 19.5 * TERA, 300 * GB, 25 * GB, 32 * GB),
    "l40s": Card(44.4 * GIB, 362 * TERA, 91.6 * TERA, 32 * GB, 12.5 * GB, 32 * GB),
    "4090": Card(23.5 * GIB, 165.2 * TERA, 82.6 * TERA, 32 * GB, 12.5 * GB, 32 * GB),
}
"""h100 and h200 are the SXM versions."""
