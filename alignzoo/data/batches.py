"""The micro-batches of a step, by number of rows or token budget, prepared while the previous step computes.

The loop asks a :class:`Batches` for each step and does not know their origin. :class:`StepBatches` takes them from a
dataset; a source in which the policy generates responses between steps can replace it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from alignzoo.data.collate import TokenBatch, grouped_batches
from alignzoo.data.columns import column
from alignzoo.data.lengths import Lengths, lengths_of
from alignzoo.data.stream import PairStream

if TYPE_CHECKING:
    from datasets import Dataset

    from alignzoo.data.parts import Scores
    from alignzoo.data.shapes import Shape


class Batches(Protocol):
    """A source of the steps' micro-batches.

    The batches of all ranks together are one step, and every rank gets the same number. A step's batches must not
    depend on which steps were requested before: a resumed run may start with any of them. A generating source therefore
    seeds its draws with the step number, and is called when the weights are those of that step; its rows may have any
    number of responses, in the order that :class:`~alignzoo.data.collate.TokenBatch` defines.
    """

    def __call__(self, step: int) -> list[TokenBatch]:
        """This rank's micro-batches of the 0-based step, in order."""


@dataclass(frozen=True)
class Sizes:
    """How a rank's rows are split into forward passes.

    Attributes:
        rows: maximum number of rows, without a budget.
        tokens: the budget, in tokens per forward pass, including padding.
        packed: whether a row's prompt counts once and nothing is padded.
    """

    rows: int
    tokens: int | None = None
    packed: bool = False

    def cost(self, rows: Sequence[int], lengths: Lengths) -> int:
        """Tokens of a forward pass over these rows."""
        if self.packed:
            return int(sum(lengths.packed[row] for row in rows))
        return int(sum(lengths.responses[row] for row in rows)) * int(max(lengths.longest[row] for row in rows))

    def cut(self, shares: Sequence[Sequence[int]], lengths: Lengths) -> list[list[list[int]]]:
        """Each share as groups of rows, the same number in each: ranks with sharded weights must take the same passes.

        By rows, order is kept. By tokens, first-fit decreasing: the longest first, each into the first group with
        room; a row longer than the budget is a group of its own.
        """
        if self.tokens is None:
            return [[list(share[i : i + self.rows]) for i in range(0, len(share), self.rows)] for share in shares]
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
                # When padding, the first row of a group is its longest.
                more = int(lengths.packed[row] if self.packed else lengths.responses[row] * lengths.longest[group[0]])
                if taken[i] + more <= self.tokens:
                    group.append(row)
                    taken[i] += more
                    break
            else:
                groups.append([row])
                taken.append(self.cost([row], lengths))
        return groups


def by_length(
    dataset: Dataset,
    sizes: Sizes,
    pad_id: int,
    *,
    shape: Shape,
    scores: Scores | None = None,
    partners: np.ndarray | None = None,
    apart: Collection[int] = (),
) -> list[TokenBatch]:
    """All rows of a dataset, in batches of similar length; arguments as for ``batches_of``.

    Args:
        apart: ids of rows that share no batch with the others.
    """
    lengths = lengths_of(dataset, partners)
    order = np.argsort(lengths.longest, kind="stable")
    outside = np.isin(column(dataset, "row_id").to_numpy()[order], list(apart))
    shares = [share.tolist() for share in (order[~outside], order[outside]) if len(share)]
    groups = [group for share in shares for group in sizes.cut([share], lengths)[0]]
    return list(grouped_batches(dataset, groups, pad_id, shape=shape, scores=scores, partners=partners))


@dataclass
class StepBatches:
    """A rank's micro-batches of a dataset by 0-based step, prepared ahead in a separate thread.

    Attributes:
        shape, scores, partners: of the dataset, see :func:`~alignzoo.data.collate.batches_of`.
        steps: number of steps of the run.
        lengths: of the dataset's rows, including mismatched responses.
        ready: applied to each batch in that thread, for example to pin its memory.
    """

    dataset: Dataset
    shape: Shape
    stream: PairStream
    steps: int
    sizes: Sizes
    lengths: Lengths
    pad_id: int
    rank: int
    world: int
    scores: Scores | None = None
    partners: np.ndarray | None = None
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
        batches = grouped_batches(
            self.dataset, groups, self.pad_id, shape=self.shape, scores=self.scores, partners=self.partners
        )
        return [self.ready(batch) for batch in batches]
