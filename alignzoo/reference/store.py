"""All log-probs under one reference available to a run, from earlier runs and its own, by response key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from alignzoo.base.cache import cache_folder
from alignzoo.reference.shards import Values, read_shard, read_shards, shard_path, write_shard
from alignzoo.report import Reporter


def store_folder(identity: str) -> Path:
    """The cache folder for the log-probs of a reference."""
    return cache_folder("reference") / identity


class Store:
    """Log-probs in memory (token log-probs in files, where those could be written) and in a folder.

    Args:
        tokens: every token's log-prob is wanted; without, sums are taken from wherever they are kept.
    """

    def __init__(self, folder: Path, *, tokens: bool, report: Reporter) -> None:
        self.tokens = tokens
        self._folder = folder
        self._report = report
        self._writable = True
        self._parts: list[Values] = []
        self._index = _Index([])

    def load(self) -> None:
        """Load the values cached by earlier runs."""
        try:
            self._parts += read_shards(self._folder, tokens=self.tokens, report=self._report)
        except OSError as error:
            self._warn_once(error)
        self._index = _Index(self._parts)

    def write(self, values: Values) -> None:
        """Cache values for later runs; if that fails, warn once and continue."""
        values = values.finite()
        if not (self._writable and len(values)):
            return
        try:
            write_shard(self._folder, values)
        except (OSError, SafetensorError) as error:
            self._warn_once(error)

    def add(self, values: Values) -> None:
        """Add values of this run: sums in memory, and token values too if no file here has them."""
        if values.token_logps is None:
            self._parts.append(values)
            return
        kept = values.finite()
        try:
            self._parts.append(read_shard(shard_path(self._folder, kept), tokens=True))
            lost = ~np.isfinite(values.logps)
        except (OSError, SafetensorError, ValueError):
            lost = np.ones(len(values), dtype=bool)
        if lost.any():
            self._parts.append(values.only(lost))

    def index(self) -> None:
        """Index the values added since."""
        self._index = _Index(self._parts)

    def has(self, keys: np.ndarray) -> np.ndarray:
        """``(N,)`` bool: which of ``(N, 2)`` keys are there."""
        return self._index.places(keys) >= 0

    def find(self, keys: np.ndarray) -> np.ndarray:
        """``(N,)``: where the values of ``(N, 2)`` keys are, -1 for those that are not there."""
        return self._index.places(keys)

    def logps(self, places: np.ndarray) -> np.ndarray:
        """``(N,)`` nats, of places that were found."""
        return self._index.logps[places]

    def token_logps(self, places: np.ndarray) -> list[np.ndarray]:
        """N arrays ``(length,)``: the log-prob of every token of a response."""
        return [self._index.tokens_of(int(place)) for place in places]

    def _warn_once(self, error: Exception) -> None:
        if self._writable:
            self._report.warn(f"cannot cache the reference log-probs: {error}; set ALIGNZOO_CACHE to a writable folder")
        self._writable = False


class _Index:
    """Values sorted by key. 128 bits are two int64 here, and numpy sorts and searches one: the first decides, and
    where two responses share it, the second. Of several values of one response, which concurrent runs can leave, the
    lowest counts, in whichever order they were read."""

    def __init__(self, parts: list[Values]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        keys = np.concatenate([part.keys for part in parts]) if parts else np.zeros((0, 2), dtype=np.int64)
        self.logps = np.concatenate([part.logps for part in parts]) if parts else np.zeros(0, dtype=np.float32)
        self._order = np.lexsort((self.logps, keys[:, 1], keys[:, 0]))
        self._first, self._second = keys[self._order, 0], keys[self._order, 1]

    def places(self, keys: np.ndarray) -> np.ndarray:
        """``(N,)``: the place of each of ``(N, 2)`` keys, -1 where it is not there."""
        found = np.full(len(keys), -1, dtype=np.int64)
        asked, at = np.arange(len(keys)), np.searchsorted(self._first, keys[:, 0])
        while len(asked):
            near = at < len(self._first)
            asked, at = asked[near], at[near]
            near = self._first[at] == keys[asked, 0]
            asked, at = asked[near], at[near]
            same = self._second[at] == keys[asked, 1]
            found[asked[same]] = self._order[at[same]]
            asked, at = asked[~same], at[~same] + 1
        return found

    def tokens_of(self, place: int) -> np.ndarray:
        """``(length,)``: the token log-probs at a place."""
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[part].tokens_of(place - int(self._starts[part]))
