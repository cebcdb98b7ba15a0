"""Log-probs under the reference that no earlier run has kept: computed before training, in batches of like length.

Which pairs share a batch depends on the pairs alone and not on what is there already, so that a run which was
interrupted here and started again has the numbers of one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from alignzoo.contract.pairs import PairBatch
from alignzoo.data.collate import TokenBatch, batches_of
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.reference.keys import batch_keys, dataset_keys
from alignzoo.reference.shards import Values
from alignzoo.reference.store import Store
from alignzoo.report import Progress, Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

TOKENS_PER_BATCH, TOKENS_ON_CPU = 4096, 1024
"""Tokens of a batch at most; at least one pair. On a CPU larger ones were no faster."""
PAIRS_PER_SHARD, SECONDS_PER_SHARD = 8192, 20.0
"""Values are kept whenever so many pairs are done or so much time has passed: what is lost when a run is killed."""
_BATCHES_AT_A_TIME = 4  # of each rank, before the ranks tell each other


@dataclass(frozen=True)
class Source:
    """Tokenised pairs, and which of them are wanted.

    Attributes:
        rows: ``(n,)`` their numbers in the dataset, ascending.
        keys: ``(n, 2, 2)`` keys of the two responses of each.
        lengths: ``(n,)`` tokens of a forward pass over each.
    """

    pairs: Dataset
    rows: np.ndarray
    keys: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, pairs: Dataset, rows: np.ndarray | None = None, *, packed: bool = True) -> Source:
        """The given rows, by default all; ``packed``: forward passes compute each prompt once."""
        pairs = pairs.select_columns(["pair_id", "prompt_ids", "chosen_ids", "rejected_ids"])
        rows = np.arange(len(pairs)) if rows is None else np.sort(rows)
        keys, lengths = dataset_keys(pairs, rows)
        padded = 2 * (lengths[:, 0] + lengths[:, 1:].max(-1))
        return cls(pairs, rows, keys, lengths.sum(-1) if packed else padded)

    def missing(self, store: Store) -> np.ndarray:
        """``(n,)`` bool: pairs of which a response is not in the store."""
        there = store.has(self.keys.reshape(-1, 2)).reshape(-1, 2)
        return ~(there[:, 0] & there[:, 1])

    def batches(self, tokens: int) -> Iterator[np.ndarray]:
        """Positions of pairs of like length, the longest first: what does not fit into memory shows at once."""
        order = np.lexsort((*self.keys[:, 0].T, -self.lengths))
        start, sizes = 0, self.lengths[order]
        ends = np.cumsum(sizes)
        while start < len(order):
            before = int(ends[start] - sizes[start])
            end = max(start + 1, int(np.searchsorted(ends, before + tokens, side="right")))
            yield order[start:end]
            start = end


@dataclass(frozen=True)
class Filling:
    """What it takes to compute log-probs under the reference.

    Attributes:
        forward: from a batch on the device to its pairs under the reference.
        together: a forward exchanges weights between the ranks: all must run equally many.
        tokens: of a batch at most, another number than what suits the device.
    """

    store: Store
    forward: Callable[[TokenBatch], PairBatch]
    accelerator: Accelerator
    report: Reporter
    pad_id: int
    together: bool = False
    tokens: int | None = None

    def complete(self, sources: Sequence[Source]) -> int:
        """Compute, keep and take in what the store lacks, each rank a share; every rank then has all of it.

        Returns:
            How many pairs were not there.
        """
        on_cpu = self.accelerator.device.type == "cpu"
        budget = self.tokens or (TOKENS_ON_CPU if on_cpu else TOKENS_PER_BATCH)
        missing = [self._anywhere(source.missing(self.store)) for source in sources]
        batches = [
            (source, positions)
            for source, lacking in zip(sources, missing, strict=True)
            for positions in source.batches(budget)
            if lacking[positions].any()
        ]
        if batches:
            total = sum(len(source.rows) for source in sources)
            done = total - sum(len(positions) for _, positions in batches)
            with self.report.progress(total, "reference log-probs", unit="pair", done=done) as bar:
                self._compute(batches, bar)
            self.store.index()
        return int(sum(lacking.sum() for lacking in missing))

    def _anywhere(self, mine: np.ndarray) -> np.ndarray:
        """True where it is so on any rank: their folders need not be the same."""
        return np.logical_or.reduce(on_all_ranks(self.accelerator, lambda: mine))

    def _compute(self, batches: Sequence[tuple[Source, np.ndarray]], bar: Progress) -> None:
        world = self.accelerator.num_processes
        turn = world * _BATCHES_AT_A_TIME if world > 1 else 1
        pending: list[Values] = []
        since = time.monotonic()
        try:
            for start in range(0, len(batches), turn):
                found = on_all_ranks(self.accelerator, partial(self._share, batches[start : start + turn], since))
                pending += [values for given, _ in found for values in given]
                for _, positions in batches[start : start + turn]:
                    for _ in positions:
                        bar.advance()
                overdue = found[0][1]  # as the first rank has it, for all write at the same time
                if overdue or sum(map(len, pending)) >= 2 * PAIRS_PER_SHARD:
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
        [batch] = batches_of(source.pairs, rows, len(rows), self.pad_id)
        return values_of(batch, self.forward(batch.to(self.accelerator.device)), tokens=self.store.tokens)

    def _keep(self, pending: Sequence[Values]) -> None:
        if not pending:
            return
        values = Values.cat(pending)
        # A batch holds pairs that are known, too. Two values of one response differ by rounding: the first one stays.
        values = values.only(~self.store.has(values.keys))
        writes = self.accelerator.is_local_main_process  # one rank of each machine: its disk may be its own
        on_all_ranks(self.accelerator, partial(self.store.write, values) if writes else lambda: None)
        self.store.add(values)


def values_of(batch: TokenBatch, pairs: PairBatch, *, tokens: bool) -> Values:
    """The log-probs of a batch's responses, the chosen ones first, as they are kept."""
    lengths = torch.cat([batch.chosen_lengths, batch.rejected_lengths])
    logps = torch.cat([pairs.chosen_logps, pairs.rejected_logps])
    flat = _in_a_row(pairs).cpu().numpy() if tokens else None
    return Values(batch_keys(batch), logps.cpu().numpy(), lengths.cpu().numpy(), flat)


def _in_a_row(pairs: PairBatch) -> torch.Tensor:
    """The log-probs of all tokens, response after response, the chosen ones first."""
    sides = (
        (pairs.chosen_token_logps, pairs.chosen_token_mask),
        (pairs.rejected_token_logps, pairs.rejected_token_mask),
    )
    return torch.cat([values[mask.bool()] for values, mask in sides if values is not None and mask is not None])
