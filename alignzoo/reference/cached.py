"""The reference as a table of log-probs: no second model in memory, and no reference forward during training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.data.shapes import NOUNS
from alignzoo.errors import AlignzooError
from alignzoo.reference.compute import Filling, Source
from alignzoo.reference.keys import batch_keys
from alignzoo.reference.store import Store


class CachedReference:
    """Looks up log-probs of responses under the reference.

    Args:
        device: the device of the returned fields.
    """

    def __init__(self, store: Store, device: torch.device) -> None:
        self._store = store
        self._device = device

    def __call__(self, batch: TokenBatch) -> ResponseBatch:
        """The batch's responses, with their log-probs under the reference weights.

        Raises:
            AlignzooError: a response is not in the store.
        """
        places = self._store.find(batch_keys(batch))
        absent = np.flatnonzero(places < 0)
        if len(absent):
            row = int(batch.row_ids[np.repeat(np.arange(batch.rows), batch.sizes)[absent[0]]])
            raise AlignzooError(
                f"no reference log-prob for row {row}",
                hint="this is a bug; --no-reference-cache computes them in every step instead",
            )
        logps = torch.from_numpy(self._store.logps(places))
        token_logps, token_mask = _padded(self._store.token_logps(places)) if self._store.tokens else (None, None)
        return ResponseBatch(
            logps=logps,
            lengths=batch.lengths.to("cpu", dtype=logps.dtype),
            prompt=batch.prompt,
            labels=batch.labels,
            ranks=batch.ranks,
            roles=batch.roles,
            token_logps=token_logps,
            token_mask=token_mask,
            paired=batch.paired,
        ).to(self._device)


def cached_reference(
    filling: Filling, sources: Callable[[], Sequence[Source]], device: torch.device | None = None
) -> CachedReference:
    """The reference table for these rows: from earlier runs, with missing values computed now.

    Args:
        device: of the returned fields; None for the one that computes.
    """
    began = time.perf_counter()
    filling.store.load()
    wanted = sources()
    computed = filling.complete(wanted)
    total = sum(len(source.rows) for source in wanted)
    filling.report.note(
        f"{filling.what} log-probs: {computed} {NOUNS[wanted[0].shape]} computed, "
        f"{total - computed} from earlier runs ({time.perf_counter() - began:.1f} s)"
    )
    return CachedReference(filling.store, device or filling.accelerator.device)


def _padded(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """``(N, T)`` values from N arrays, T the longest one's length, and their mask."""
    values = np.zeros((len(rows), max(map(len, rows))), dtype=rows[0].dtype)
    mask = np.zeros_like(values)
    for row, given in enumerate(rows):
        values[row, : len(given)] = given
        mask[row, : len(given)] = 1
    return torch.from_numpy(values), torch.from_numpy(mask)
