"""The reference of a run as a table of its log-probs: no model is kept beside the policy, and no step waits for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from alignzoo.contract.pairs import PairBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.errors import AlignzooError
from alignzoo.reference.compute import Filling, Source
from alignzoo.reference.keys import batch_keys
from alignzoo.reference.store import Store


class CachedReference:
    """Log-probs of pairs under the reference, looked up.

    Args:
        device: where the fields are wanted.
    """

    def __init__(self, store: Store, device: torch.device) -> None:
        self._store = store
        self._device = device

    def __call__(self, batch: TokenBatch) -> PairBatch:
        """The fields ``chosen_logps``, ... of the batch's pairs under the reference weights.

        Raises:
            AlignzooError: a response is not in the store.
        """
        places = self._store.find(batch_keys(batch))
        pairs = batch.pairs
        if (places < 0).any():
            missing = int(batch.pair_ids[int(np.flatnonzero(places < 0)[0]) % pairs])
            raise AlignzooError(
                f"there is no reference log-prob of pair {missing}",
                hint="this should not happen; --no-reference-cache computes them in every step",
            )
        logps = torch.from_numpy(self._store.logps(places))
        lengths = torch.cat([batch.chosen_lengths, batch.rejected_lengths]).to("cpu", dtype=logps.dtype)
        fields = _sides("logps", logps, pairs) | _sides("lengths", lengths, pairs)
        if self._store.tokens:
            rows, mask = _padded(self._store.token_logps(places))
            fields |= _sides("token_logps", rows, pairs) | _sides("token_mask", mask, pairs)
        return PairBatch(**fields).to(self._device)


def cached_reference(filling: Filling, pairs: Callable[[], Sequence[Source]]) -> CachedReference:
    """The reference of a run that sees these pairs: from earlier runs, and what they lack computed now."""
    began = time.perf_counter()
    filling.store.load()
    sources = pairs()
    computed = filling.complete(sources)
    total = sum(len(source.rows) for source in sources)
    filling.report.note(
        f"reference log-probs: {computed} pairs computed, {total - computed} from earlier runs "
        f"({time.perf_counter() - began:.1f} s)"
    )
    return CachedReference(filling.store, filling.accelerator.device)


def _sides(name: str, both: torch.Tensor, pairs: int) -> dict[str, Any]:
    return {f"chosen_{name}": both[:pairs], f"rejected_{name}": both[pairs:]}


def _padded(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """``(N, T)`` values from N arrays, T the longest one's length, and their mask."""
    values = np.zeros((len(rows), max(map(len, rows))), dtype=rows[0].dtype)
    mask = np.zeros_like(values)
    for row, given in enumerate(rows):
        values[row, : len(given)] = given
        mask[row, : len(given)] = 1
    return torch.from_numpy(values), torch.from_numpy(mask)
