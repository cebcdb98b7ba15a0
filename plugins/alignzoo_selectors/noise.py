"""What the noise selectors share: an exact number of rows, drawn row by row.

Row i has the weight w_i and the key  log w_i − log(−log u_i)  with u_i ~ U(0, 1); the rows of the ``round(rate·N)``
largest keys are flipped. That is drawing without replacement with probabilities proportional to the weights (Gumbel
top-k; Efraimidis and Spirakis, 2006). u_i is a hash of the selector's name, the run's seed and the row's number in the
data, so a row's fate does not depend on the order of the rows, a higher rate flips a superset, and two selectors in a
stack draw independently of each other and of ``--label-noise``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.interfaces import SelectionContext
from alignzoo.lazy import np
from alignzoo.plugin import Options

if TYPE_CHECKING:
    from numpy import ndarray

FLIPPABLE = frozenset({"pairs", "ranked", "unpaired"})
"""The shapes of rows that have a label to flip."""


class RateOptions(Options):
    """How many rows."""

    rate: float = Field(0.2, ge=0, le=1, description="share of the training rows to flip, exactly", examples=[0.5])


def uniforms(name: str, seed: int, keys: Iterable[object]) -> ndarray:
    """One number in (0, 1) per key, ``(N,)`` fp64, that depends on nothing but the name, the seed and the key."""
    hashes = b"".join(hashlib.sha256(f"{name}/{seed}/{key}".encode()).digest()[:8] for key in keys)
    numbers: ndarray = np.frombuffer(hashes, ">u8") >> 11  # 53 bits: what fp64 holds
    return (numbers + 0.5) / 2.0**53


def drawn(name: str, ctx: SelectionContext, rate: float, log_weights: ndarray | float = 0.0) -> list[int]:
    """``round(rate·N)`` rows, ascending, drawn with these log-weights, ``(N,)``."""
    keys = log_weights - np.log(-np.log(uniforms(name, ctx.seed, ctx.row_ids.tolist())))
    order = np.argsort(-keys, kind="stable")
    return sorted(order[: round(rate * len(ctx))].tolist())


def log_sigmoid(x: ndarray) -> ndarray:
    """log σ(x), without overflow."""
    found: ndarray = -np.logaddexp(0, -x)
    return found


def means(what: str, values: ndarray, flipped: Sequence[int]) -> dict[str, float]:
    """The mean of a quantity over the flipped rows and over the others, as facts of a selection."""
    chosen = np.zeros(len(values), bool)
    chosen[list(flipped)] = True
    parts = {f"{what}_flipped": values[chosen], f"{what}_others": values[~chosen]}
    return {name: float(part.mean()) for name, part in parts.items() if len(part)}
