"""Collects the result of the pass over all rows: one file of usable rows, their content hashes, and a summary."""

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

_PERCENTILES = (5, 50, 95, 100)


class Kept:
    """Takes the blocks of the pass in order, one at a time; keeps only a few numbers per row."""

    def __init__(self, task: TokeniseRows) -> None:
        self.task = task
        self.rows = self.usable = 0
        self.counted = dict.fromkeys(COUNTED, 0)
        self.highest_id = -1
        self._tally = Tally()
        self._tokens: list[bytes] = []
        self._contents: list[bytes] = []
        self._ids: list[np.ndarray] = []
        self._prompts: list[np.ndarray] = []
        self._responses: list[np.ndarray] = []
        self._desirable = 0

    def write(self, blocks: Iterable[Any], path: Path, features: Features, fingerprint: str) -> None:
        """Write the usable rows of all blocks (pyarrow tables) to an Arrow file.

        Args:
            features: the columns of the pass.
            fingerprint: of the dataset that the file is loaded as.
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
        """The usable rows of a block, counted."""
        import pyarrow.compute as pc  # type: ignore[import-untyped]

        self.rows += block.num_rows
        dropped = block.filter(pc.not_equal(block["reason"], ""))
        if dropped.num_rows:
            for reason, row in zip(dropped["reason"].to_pylist(), dropped["row_id"].to_pylist(), strict=True):
                self._tally.add(reason, row)
            block = block.filter(pc.equal(block["reason"], ""))
        if block.num_rows == 0:
            return block
        self.usable += block.num_rows
        for name in COUNTED:
            self.counted[name] += pc.sum(block[name]).as_py()
        # Copies: an array of a block would keep the whole block in memory.
        self._tokens.append(b"".join(block["tokens"].to_pylist()))
        self._contents.append(b"".join(block["content"].to_pylist()))
        self._ids.append(block["row_id"].to_numpy().copy())
        prompts, responses = block["prompt_ids"], pc.list_flatten(block["response_ids"])
        self._prompts.append(pc.list_value_length(prompts).to_numpy())
        self._responses.append(pc.list_value_length(responses).to_numpy())
        for ids in (prompts, responses):
            self.highest_id = max(self.highest_id, pc.max(pc.list_flatten(ids)).as_py() or 0)
        if self.task.layout.shape == "unpaired":
            self._desirable += int((block["label"].to_numpy() > 0).sum())
        return block

    def dropped(self) -> dict[str, Dropped]:
        """The unusable rows, by reason."""
        return self._tally.dropped()

    def contents(self) -> np.ndarray:
        """The content hash of each usable row, excluding its number: ``(N, 32)`` uint8."""
        return np.frombuffer(b"".join(self._contents), np.uint8).reshape(-1, 32)

    def fingerprint(self) -> str:
        """A hash of the usable rows, including their numbers."""
        return sha256(np.concatenate(self._ids).astype("<i8").tobytes() + self.contents().tobytes()).hexdigest()

    def summary(self) -> DataSummary:
        """The summary; the caller sets its ``source``."""
        import pyarrow as pa
        import pyarrow.compute as pc

        tokens = pa.Array.from_buffers(pa.binary(32), self.usable, [None, pa.py_buffer(b"".join(self._tokens))])
        different = pc.count_distinct(tokens).as_py()
        counted = {
            "boundary-moved": self.counted["boundary_moved"],
            "response-truncated": self.counted["truncated"],
            "prompt-restored": self.counted["prompt_restored"],
            "duplicate": self.usable - different,
        }
        shape, responses = self.task.layout.shape, np.concatenate(self._responses)
        lengths = {"prompt": np.concatenate(self._prompts)}
        if shape == "pairs":
            lengths |= {"chosen": responses[::2], "rejected": responses[1::2]}
        else:
            lengths["response"] = responses
        if shape == "unpaired":
            counted |= {"desirable": self._desirable, "undesirable": self.usable - self._desirable}
        if shape == "ranked":
            counted["responses"] = len(responses)
        return DataSummary(
            source="",
            split=None,
            format=self.task.layout.name,
            shape=shape,
            rows=self.rows,
            kept=self.usable,
            dropped=self.dropped(),
            counted=counted,
            lengths={text: _percentiles(sizes) for text, sizes in lengths.items()},
        )


def _percentiles(sizes: np.ndarray) -> dict[str, int]:
    points = np.percentile(sizes, _PERCENTILES, method="nearest")
    return {f"p{point}" if point < 100 else "max": int(size) for point, size in zip(_PERCENTILES, points, strict=True)}
