"""Which pairs each optimizer step sees: a function of the step number, so that resuming needs nothing else."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from alignzoo.errors import UsageError


class PairStream:
    """The concatenation of one seeded permutation of all pairs per epoch, cut into steps of ``batch_size``.

    Every pair comes once per epoch and every step has exactly ``batch_size`` pairs; a step may span two epochs.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        """``n``: number of pairs. Raises ``UsageError`` unless both sizes are positive."""
        if n < 1 or batch_size < 1:
            raise UsageError(f"Need at least one pair and one pair per step, got {n} pairs and {batch_size} per step")
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self._current: tuple[int, np.ndarray] | None = None

    def steps(self, epochs: float) -> int:
        """Steps until every pair was seen ``epochs`` times (the last step runs over into the next epoch)."""
        # Binary fractions would turn 0.1 epochs of 30 pairs into 3.0000000000000004 pairs, and so into one more step.
        pairs = Fraction(str(epochs)) * self.n
        return math.ceil(pairs / self.batch_size)

    def indices(self, step: int) -> list[int]:
        """Row numbers (``batch_size`` of them, in [0, n)) of step ``step``, counted from 0."""
        start = step * self.batch_size
        positions = range(start, start + self.batch_size)
        return [int(self._order(position // self.n)[position % self.n]) for position in positions]

    def visited(self, steps: int) -> np.ndarray:
        """Row numbers that so many steps take, each once, in no particular order."""
        return self._order(0)[: min(steps * self.batch_size, self.n)]

    def _order(self, epoch: int) -> np.ndarray:
        if self._current is None or self._current[0] != epoch:
            # SeedSequence takes no negative numbers; the sign becomes a word of its own.
            generator = np.random.default_rng([abs(self.seed), int(self.seed < 0), epoch])
            self._current = (epoch, generator.permutation(self.n))
        return self._current[1]
