"""What the pass over all rows adds up to: the usable pairs in one file, their content hashes and the account of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.data.summary import DataSummary, Dropped, Tally
from alignzoo.data.tokenise_rows import BOOKKEEPING, COUNTED, TokeniseRows

if TYPE_CHECKING:
    from datasets import Features

_SIDES = ("prompt", "chosen", "rejected")
_PERCENTILES = (5, 50, 95, 100)


class Kept:
    """Takes the blocks of the pass in order, one at a time; what it holds on to is a few numbers per pair."""

    def __init__(self, task: TokeniseRows) -> None:
        self.task = task
        self.rows = self.pairs = 0
        self.counted = dict.fromkeys(COUNTED, 0)
        self.highest_id = -1
        self._tally = Tally()
        self._tokens: list[bytes] = []
        self._contents: list[bytes] = []
        self._ids: list[np.ndarray] = []
        self._lengths: dict[str, list[np.ndarray]] = {side: [] for side in _SIDES}

    def write(self, blocks: Iterable[Any], path: Path, features: Features, fingerprint: str) -> None:
        """Write the usable pairs of all blocks (pyarrow tables) to an Arrow file.

        Args:
            features: the columns of the pass.
            fingerprint: that of the dataset that the file is read as.
        """
        import pyarrow as pa  # type: ignore[import-untyped]

        schema = type(features)({name: kind for name, kind in features.items() if name not in BOOKKEEPING}).arrow_schema
        described = json.loads(schema.metadata[b"huggingface"]) | {"fingerprint": fingerprint}
        schema = schema.with_metadata({"huggingface": json.dumps(described)})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for block in blocks:
                usable = self._count(block)
                if usable.num_rows:
                    writer.write_table(usable.select(schema.names).cast(schema).combine_chunks())

    def _count(self, block: Any) -> Any:
        """The usable pairs of a block, counted."""
        import pyarrow.compute as pc  # type: ignore[import-untyped]

        self.rows += block.num_rows
        dropped = block.filter(pc.not_equal(block["reason"], ""))
        if dropped.num_rows:
            for reason, row in zip(dropped["reason"].to_pylist(), dropped["pair_id"].to_pylist(), strict=True):
                self._tally.add(reason, row)
            block = block.filter(pc.equal(block["reason"], ""))
        if block.num_rows == 0:
            return block
        self.pairs += block.num_rows
        for name in COUNTED:
            self.counted[name] += pc.sum(block[name]).as_py()
        # Copies: an array of a block would hold on to all of the block.
        self._tokens.append(b"".join(block["tokens"].to_pylist()))
        self._contents.append(b"".join(block["content"].to_pylist()))
        self._ids.append(block["pair_id"].to_numpy().copy())
        for side in _SIDES:
            ids = block[f"{side}_ids"]
            self._lengths[side].append(pc.list_value_length(ids).to_numpy())
            self.highest_id = max(self.highest_id, pc.max(pc.list_flatten(ids)).as_py() or 0)
        return block

    def dropped(self) -> dict[str, Dropped]:
        """The rows that were not usable, by reason."""
        return self._tally.dropped()

    def contents(self) -> np.ndarray:
        """The content hash of each usable pair, which covers all of it but its number: ``(N, 32)`` uint8."""
        return np.frombuffer(b"".join(self._contents), np.uint8).reshape(-1, 32)

    def fingerprint(self) -> str:
        """A hash of the usable pairs, their numbers included."""
        return sha256(np.concatenate(self._ids).astype("<i8").tobytes() + self.contents().tobytes()).hexdigest()

    def summary(self) -> DataSummary:
        """The account; its ``source`` is left to the caller."""
        import pyarrow as pa
        import pyarrow.compute as pc

        tokens = pa.Array.from_buffers(pa.binary(32), self.pairs, [None, pa.py_buffer(b"".join(self._tokens))])
        different = pc.count_distinct(tokens).as_py()
        counted = {
            "boundary-moved": self.counted["boundary_moved"],
            "response-truncated": self.counted["truncated"],
            "prompt-restored": self.counted["prompt_restored"],
            "duplicate": self.pairs - different,
        }
        lengths = {side: _percentiles(np.concatenate(sizes)) for side, sizes in self._lengths.items()}
        return DataSummary("", None, self.task.layout.name, self.rows, self.pairs, self.dropped(), counted, lengths)


def _percentiles(sizes: np.ndarray) -> dict[str, int]:
    points = np.percentile(sizes, _PERCENTILES, method="nearest")
    return {f"p{point}" if point < 100 else "max": int(size) for point, size in zip(_PERCENTILES, points, strict=True)}
