"""Computes missing reference log-probs before training, in batches of similar length.

Which rows share a batch depends only on the rows and not on the cache, so an interrupted and restarted run gets the
same numbers as an uninterrupted one. The rows that packing was tried on form a batch of their own, whether the trial's
numbers are still there or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch, batches_of
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.logprobs.trial import Sample
from alignzoo.reference.keys import RowKeys, batch_keys, dataset_keys
from alignzoo.reference.shards import Values
from alignzoo.reference.store import Store
from alignzoo.report import Progress, Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from alignzoo.data.shapes import Shape

TOKENS_PER_BATCH, TOKENS_ON_CPU = 4096, 1024
"""Maximum tokens per batch, with at least one row. On a CPU, larger batches were not faster."""
RESPONSES_PER_SHARD, SECONDS_PER_SHARD = 16384, 20.0
"""Values are saved after this many responses or this much time, which bounds the loss when a run is killed."""
_BATCHES_AT_A_TIME = 4  # per rank, between exchanges of the ranks


@dataclass(frozen=True)
class Source:
    """Rows of a prepared dataset whose responses are needed.

    Attributes:
        shape: of the dataset.
        rows: ``(n,)`` their numbers in the dataset, ascending.
        keys: those of their responses, mismatched ones included.
        lengths: ``(n,)`` tokens of a forward pass over each.
        partners: ``(N,)`` the row whose responses are a row's mismatched ones, where these are wanted.
    """

    dataset: Dataset
    shape: Shape
    rows: np.ndarray
    keys: RowKeys
    lengths: np.ndarray
    partners: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        rows: np.ndarray | None = None,
        *,
        shape: Shape,
        packed: bool = True,
        partners: np.ndarray | None = None,
    ) -> Source:
        """The given rows, by default all; ``packed``: forward passes compute each prompt once."""
        names = ("row_id", "prompt_ids", "response_ids", "label")
        dataset = dataset.select_columns([name for name in names if name in dataset.column_names])
        rows = np.arange(len(dataset)) if rows is None else np.sort(rows)
        keys = dataset_keys(dataset, rows, partners)
        return cls(dataset, shape, rows, keys, keys.packed if packed else keys.padded, partners)

    def missing(self, store: Store) -> np.ndarray:
        """``(n,)`` bool: rows with a response that is not in the store."""
        return ~self._whole(store.has(self.keys.keys))

    def inside(self, keys: np.ndarray) -> np.ndarray:
        """``(n,)`` bool: rows whose responses all are among these, ``(N, 2)``."""
        own = self.keys.keys
        there = np.isin(own[:, 0], keys[:, 0])
        there[there] = (own[there, None] == keys).all(-1).any(-1)
        return self._whole(there)

    def _whole(self, there: np.ndarray) -> np.ndarray:
        """``(n,)`` bool: rows all of whose responses are there, ``(R,)``."""
        return np.logical_and.reduceat(there, self.keys.offsets[:-1])

    def batches(self, tokens: int, without: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Batches of rows of similar length, the longest first, so that running out of memory shows immediately;
        without some rows, ``(n,)`` bool."""
        order = np.lexsort((*self.keys.first.T, -self.lengths))
        order = order if without is None else order[~without[order]]
        start, sizes = 0, self.lengths[order]
        ends = np.cumsum(sizes)
        while start < len(order):
            before = int(ends[start] - sizes[start])
            end = max(start + 1, int(np.searchsorted(ends, before + tokens, side="right")))
            yield order[start:end]
            start = end


@dataclass(frozen=True)
class Filling:
    """Everything needed to compute log-probs under the reference.

    Attributes:
        forward: from a batch on the device to its responses under the reference.
        together: a forward exchanges weights between the ranks: all must run equally many.
        tokens: of a batch at most, another number than what suits the device.
        what: whose log-probs they are, in messages.
        sample: rows that share a batch of their own, with the forward's responses where these are known; of a single
            process.
    """

    store: Store
    forward: Callable[[TokenBatch], ResponseBatch]
    accelerator: Accelerator
    report: Reporter
    pad_id: int
    together: bool = False
    tokens: int | None = None
    what: str = "reference"
    sample: Sample | None = None

    def complete(self, sources: Sequence[Source]) -> int:
        """Compute, save and load the values missing from the store, each rank a share; afterwards every rank has all.

        Returns:
            The number of missing rows.
        """
        on_cpu = self.accelerator.device.type == "cpu"
        budget = self.tokens or (TOKENS_ON_CPU if on_cpu else TOKENS_PER_BATCH)
        missing = [self._anywhere(source.missing(self.store)) for source in sources]
        keys = None if self.sample is None else batch_keys(self.sample.batch)
        batches = [
            (source, positions)
            for source, lacking in zip(sources, missing, strict=True)
            for positions in source.batches(budget, None if keys is None else source.inside(keys))
            if lacking[positions].any()
        ]
        sampled = [] if keys is None or self.store.has(keys).all() else [self._of_sample()]
        if batches or sampled:
            total = sum(len(source.rows) for source in sources)
            done = total - sum(len(positions) for _, positions in batches)
            with self.report.progress(total, f"{self.what} log-probs", unit="row", done=done) as bar:
                self._compute(batches, bar, sampled)
            self.store.index()
        return int(sum(lacking.sum() for lacking in missing))

    def _anywhere(self, mine: np.ndarray) -> np.ndarray:
        """True where any rank has True: their cache folders may differ."""
        return np.logical_or.reduce(on_all_ranks(self.accelerator, lambda: mine))

    def _of_sample(self) -> Values:
        assert self.sample is not None
        batch, known = self.sample.batch, self.sample.responses
        return values_of(batch, self.forward(batch) if known is None else known, tokens=self.store.tokens)

    def _compute(self, batches: Sequence[tuple[Source, np.ndarray]], bar: Progress, pending: list[Values]) -> None:
        """Compute these batches and keep their values, and those that are ``pending``."""
        world = self.accelerator.num_processes
        turn = world * _BATCHES_AT_A_TIME if world > 1 else 1
        since = time.monotonic()
        try:
            for start in range(0, len(batches), turn):
                found = on_all_ranks(self.accelerator, partial(self._share, batches[start : start + turn], since))
                pending += [values for given, _ in found for values in given]
                for _, positions in batches[start : start + turn]:
                    for _ in positions:
                        bar.advance()
                overdue = found[0][1]  # as the first rank has it, for all write at the same time
                if overdue or sum(map(len, pending)) >= RESPONSES_PER_SHARD:
                    self._keep(pending)
                    pending, since = [], time.monotonic()
        except BaseException:
            if world == 1:
                self._keep(pending)
            raise
        self._keep(pending)

    def _share(self, batches: Sequence[tuple[Source, np.ndarray]], since: float) -> tuple[list[Values], bool]:
        """The values of this rank's batches, and whether it is time to write."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = list(batches[rank::world])
        given = [self._values(source, positions) for source, positions in mine]
        if self.together:
            for source, positions in batches[:1] * (-(-len(batches) // world) - len(mine)):
                self._values(source, positions)
        return given, time.monotonic() - since >= SECONDS_PER_SHARD

    def _values(self, source: Source, positions: np.ndarray) -> Values:
        rows = source.rows[positions].tolist()
        [batch] = batches_of(source.dataset, rows, len(rows), self.pad_id, shape=source.shape, partners=source.partners)
        return values_of(batch, self.forward(batch.to(self.accelerator.device)), tokens=self.store.tokens)

    def _keep(self, pending: Sequence[Values]) -> None:
        if not pending:
            return
        values = Values.cat(pending)
        # A batch may contain known rows. Two values of one response differ by rounding: the first one stays.
        values = values.only(~self.store.has(values.keys))
        writes = self.accelerator.is_local_main_process  # one rank of each machine: its disk may be its own
        on_all_ranks(self.accelerator, partial(self.store.write, values) if writes else lambda: None)
        self.store.add(values)


def values_of(batch: TokenBatch, responses: ResponseBatch, *, tokens: bool) -> Values:
    """The log-probs of a batch's responses, in its order, in storage form."""
    flat = None
    if tokens:
        assert responses.token_logps is not None
        assert responses.token_mask is not None
        flat = responses.token_logps[responses.token_mask.bool()].cpu().numpy()
    return Values(batch_keys(batch), responses.logps.cpu().numpy(), batch.lengths.cpu().numpy(), flat)
