"""Rows as a prepared dataset, and what fills a store with their log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.logprobs.logps import padded_logps
from alignzoo.reference.compute import Filling, Source
from alignzoo.reference.shards import Values
from alignzoo.reference.store import Store
from alignzoo.report import Reporter
from alignzoo.testing.tiny import random_rows

RANKED = random_rows([3, 2, 4, 2, 5, 3, 2], seed=3)
UNPAIRED = [{**row, "label": 1 - 2 * (i % 2)} for i, row in enumerate(random_rows([1] * 9, seed=2))]


class Counting:
    """The padded forward of a model, which counts the rows it is asked for, and fails at batch ``at``."""

    def __init__(self, model: Any, *, tokens: bool = False, at: int | None = None) -> None:
        self._forward = partial(padded_logps, model, tokens=tokens)
        self._at = at
        self.sizes: list[int] = []

    def __call__(self, batch: TokenBatch) -> ResponseBatch:
        if len(self.sizes) == self._at:
            raise KeyboardInterrupt
        self.sizes.append(batch.rows)
        with torch.no_grad():
            return self._forward(batch)


def dataset_of(rows: Sequence[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(list(rows))


def source_of(rows: Sequence[dict[str, Any]], some: np.ndarray | None = None, **given: Any) -> Source:
    return Source.of(dataset_of(rows), some, **{"shape": "pairs", **given})


def swapped(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with the opposite label."""
    found = [{**row, "response_ids": row["response_ids"][::-1]} for row in rows]
    return [{**row, "label": -row["label"]} if "label" in row else row for row in found]


def filling(folder: Path, forward: Any, report: Reporter, *, tokens: bool = False, together: bool = False) -> Filling:
    store = Store(folder, tokens=tokens, report=report)
    return Filling(store, forward, Accelerator(cpu=True), report, pad_id=0, together=together, tokens=100)


def some_values(count: int, *, seed: int = 0, tokens: bool = False) -> Values:
    """Random values of as many responses, the last one's log-prob not a round number."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 9, count)
    flat = draw.normal(size=int(lengths.sum())).astype(np.float32)
    keys = draw.integers(-(2**63), 2**63 - 1, (count, 2), dtype=np.int64)
    logps = np.array([part.sum() for part in np.split(flat, np.cumsum(lengths)[:-1])], dtype=np.float32)
    return Values(keys, logps, lengths, flat if tokens else None)
