"""The rows of each optimizer step, a function of the step number alone, so resuming needs no other state."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from alignzoo.errors import UsageError


class PairStream:
    """One seeded permutation of all rows per epoch, concatenated and split into steps of ``batch_size``; not
    ``shuffled``, the rows in their order.

    Every row occurs once per epoch and every step has exactly ``batch_size`` rows; a step may span two epochs.
    """

    def __init__(self, n: int, batch_size: int, seed: int, *, shuffled: bool = True) -> None:
        """``n``: number of rows. Raises ``UsageError`` unless both sizes are positive."""
        if n < 1 or batch_size < 1:
            raise UsageError(f"need at least one row and one row per step, got {n} rows and {batch_size} per step")
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.shuffled = shuffled
        self._current: tuple[int, np.ndarray] | None = None

    def steps(self, epochs: float) -> int:
        """Steps until every row was seen ``epochs`` times (the last step may run into the next epoch)."""
        # In floating point, 0.1 epochs of 30 rows are 3.0000000000000004 rows, and so one step too many.
        pairs = Fraction(str(epochs)) * self.n
        return math.ceil(pairs / self.batch_size)

    def indices(self, step: int) -> list[int]:
        """The ``batch_size`` row numbers, in [0, n), of the 0-based step."""
        start = step * self.batch_size
        positions = range(start, start + self.batch_size)
        return [int(self._order(position // self.n)[position % self.n]) for position in positions]

    def visited(self, steps: int) -> np.ndarray:
        """The row numbers used in this many steps, each once, in no particular order."""
        return self._order(0)[: min(steps * self.batch_size, self.n)]

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffled:
            return np.arange(self.n)
        if self._current is None or self._current[0] != epoch:
            # SeedSequence takes no negative numbers; the sign becomes a separate word.
            generator = np.random.default_rng([abs(self.seed), int(self.seed < 0), epoch])
            self._current = (epoch, generator.permutation(self.n))
        return self._current[1]
