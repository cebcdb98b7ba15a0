"""The micro-batches of a step: so many pairs each, or as many as a budget of tokens holds; made while the last one
computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.collate import TokenBatch, grouped_batches
from alignzoo.data.lengths import Lengths, lengths_of
from alignzoo.data.stream import PairStream

if TYPE_CHECKING:
    from datasets import Dataset

    from alignzoo.data.parts import Scores


@dataclass(frozen=True)
class Sizes:
    """How a share of pairs is cut into forward passes.

    Attributes:
        pairs: at most so many pairs, where there is no budget.
        tokens: the budget, in tokens of a forward pass, padding included.
        packed: whether a pair's prompt counts once and nothing is padded.
    """

    pairs: int
    tokens: int | None = None
    packed: bool = False

    def cost(self, rows: Sequence[int], lengths: Lengths) -> int:
        """Tokens of a forward pass over these rows."""
        if self.packed:
            return int(sum(lengths.packed[row] for row in rows))
        return 2 * len(rows) * int(max(lengths.longest[row] for row in rows))

    def cut(self, shares: Sequence[Sequence[int]], lengths: Lengths) -> list[list[list[int]]]:
        """Each share as groups of rows, as many groups in each: ranks that shard their weights take the same passes.

        By pairs, the rows stay in their order. By tokens, the longest go first, each into the first group that has room
        for it; a pair that is longer than the budget is a group of its own.
        """
        if self.tokens is None:
            return [[list(share[i : i + self.pairs]) for i in range(0, len(share), self.pairs)] for share in shares]
        cuts = [self._within_budget(share, lengths) for share in shares]
        count = max(map(len, cuts))
        for groups in cuts:
            while len(groups) < count:
                largest = max(range(len(groups)), key=lambda i: len(groups[i]))
                rows = groups.pop(largest)
                groups += [rows[::2], rows[1::2]]
        return cuts

    def _within_budget(self, share: Sequence[int], lengths: Lengths) -> list[list[int]]:
        assert self.tokens is not None
        groups: list[list[int]] = []
        taken: list[int] = []  # tokens of each group
        for row in sorted(share, key=lambda row: -int((lengths.packed if self.packed else lengths.longest)[row])):
            for i, group in enumerate(groups):
                # Padded, the first one of a group is its longest.
                more = int(lengths.packed[row]) if self.packed else 2 * int(lengths.longest[group[0]])
                if taken[i] + more <= self.tokens:
                    group.append(row)
                    taken[i] += more
                    break
            else:
                groups.append([row])
                taken.append(self.cost([row], lengths))
        return groups


def by_length(pairs: Dataset, sizes: Sizes, pad_id: int, scores: Scores | None = None) -> list[TokenBatch]:
    """All of a dataset's pairs, in batches of similar length."""
    lengths = lengths_of(pairs)
    order = [int(row) for row in np.argsort(lengths.longest, kind="stable")]
    [groups] = sizes.cut([order], lengths)
    return list(grouped_batches(pairs, groups, pad_id, scores))


@dataclass
class StepBatches:
    """A rank's micro-batches by the 0-based step, made ahead in a thread of their own.

    Attributes:
        steps: how many the run takes.
        ready: what is done to a batch there: moved to where the device fetches it from.
    """

    pairs: Dataset
    scores: Scores | None
    stream: PairStream
    steps: int
    sizes: Sizes
    lengths: Lengths
    pad_id: int
    rank: int
    world: int
    ready: Callable[[TokenBatch], TokenBatch] = lambda batch: batch
    _ahead: tuple[int, Future[list[TokenBatch]]] | None = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "collating"))

    def __call__(self, step: int) -> list[TokenBatch]:
        ahead, self._ahead = self._ahead, None
        made = ahead[1].result() if ahead is not None and ahead[0] == step else self._make(step)
        if step + 1 < self.steps:
            self._ahead = (step + 1, self._thread.submit(self._make, step + 1))
        return made

    def _make(self, step: int) -> list[TokenBatch]:
        rows = self.stream.indices(step)
        size = len(rows) // self.world
        shares = [rows[rank * size : (rank + 1) * size] for rank in range(self.world)]
        groups = self.sizes.cut(shares, self.lengths)[self.rank]
        return [self.ready(batch) for batch in grouped_batches(self.pairs, groups, self.pad_id, self.scores)]
