"""Log-probs on disk, in files of some hundreds or thousands of responses each, written atomically.

``sums-….safetensors`` holds one number per response, ``tokens-….safetensors`` every token's beside.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from alignzoo.base.files import whole
from alignzoo.report import Reporter

_TOKENS_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class Values:
    """Log-probs of n responses under one reference.

    Attributes:
        keys: ``(n, 2)`` int64.
        logps: ``(n,)`` in nats, summed over the response's tokens, in the dtype that the forward gave.
        lengths: ``(n,)`` int64, tokens.
        token_logps: every token's, those of one response after another; an array, or a file's slice that reads what is
            asked for. None where only sums were computed or wanted.
    """

    keys: np.ndarray
    logps: np.ndarray
    lengths: np.ndarray
    token_logps: Any = None

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def ends(self) -> np.ndarray:
        """``(n,)``: where each response's tokens end in :attr:`token_logps`."""
        return np.cumsum(self.lengths)

    def tokens_of(self, place: int) -> np.ndarray:
        """``(length,)``: the token log-probs of one response."""
        end = int(self.ends[place])
        return np.asarray(self.token_logps[end - int(self.lengths[place]) : end])

    def only(self, kept: np.ndarray) -> Values:
        """Those at which ``kept`` ``(n,)`` is True."""
        if kept.all():
            return self
        tokens = None if self.token_logps is None else self.token_logps[np.repeat(kept, self.lengths)]
        return Values(self.keys[kept], self.logps[kept], self.lengths[kept], tokens)

    def finite(self) -> Values:
        """The finite values: others are better recomputed than cached."""
        return self.only(np.isfinite(self.logps))

    @staticmethod
    def cat(parts: Sequence[Values]) -> Values:
        """One after another; all with token log-probs, or all without."""
        tokens = None if parts[0].token_logps is None else np.concatenate([part.token_logps for part in parts])
        keys, logps, lengths = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "logps", "lengths")
        )
        return Values(keys, logps, lengths, tokens)


def shard_path(folder: Path, values: Values) -> Path:
    """Where a folder holds these values: the name is their content, so that two writers of the same do not differ."""
    kind = "sums" if values.token_logps is None else "tokens"
    return folder / f"{kind}-{_content(values)}.safetensors"


def write_shard(folder: Path, values: Values) -> None:
    """Write values for later runs, atomically.

    Raises:
        OSError, SafetensorError: the folder cannot be written, or its disk is full.
    """
    path = shard_path(folder, values)
    tensors = {"keys": values.keys, "logps": values.logps, "lengths": values.lengths}
    stated = {"content": _content(values)}
    if values.token_logps is not None:
        tensors["token_logps"] = values.token_logps
        stated["tokens"] = _tokens_content(values)
    folder.mkdir(parents=True, exist_ok=True)
    with whole(path, durable=False) as written:
        save_file(tensors, written, metadata=stated)


def read_shards(folder: Path, *, tokens: bool, report: Reporter) -> Iterator[Values]:
    """The values in a folder; with ``tokens``, only those with token log-probs. Corrupt files are removed."""
    kinds = ("tokens",) if tokens else ("sums", "tokens")
    for path in sorted(path for kind in kinds for path in folder.glob(f"{kind}-*.safetensors")):
        try:
            yield read_shard(path, tokens=tokens)
        except FileNotFoundError:
            continue  # cleared by somebody else since it was listed
        except OSError as error:
            report.warn(f"the cached reference log-probs in {path} cannot be read ({error}); recomputing them")
        except (SafetensorError, ValueError) as error:
            report.warn(f"the cached reference log-probs in {path} are corrupt ({error}); recomputing them")
            with contextlib.suppress(OSError):
                path.unlink()


def read_shard(path: Path, *, tokens: bool) -> Values:
    """The values of a file; token log-probs stay there until they are asked for.

    Raises:
        OSError, SafetensorError, ValueError: there is no such file, or it is not what was written.
    """
    with safe_open(path, "np") as file:
        stated = file.metadata() or {}
        keys, logps, lengths = (file.get_tensor(name) for name in ("keys", "logps", "lengths"))
        values = Values(keys, logps, lengths, file.get_slice("token_logps") if tokens else None)
        if stated.get("content") != _content(values) or (tokens and stated.get("tokens") != _tokens_content(values)):
            raise ValueError("its content is not what was written")
    if not tokens:
        return values
    # Reopened: pages mapped for the check would otherwise count as this process's memory while it runs.
    return replace(values, token_logps=safe_open(path, "np").get_slice("token_logps"))


def _content(values: Values) -> str:
    """A hash of values without their tokens', 32 hex digits."""
    content = hashlib.sha256()
    for array in (values.keys, values.logps, values.lengths):
        content.update(f"{array.dtype.str}{array.shape}".encode())
        content.update(array.tobytes())
    return content.hexdigest()[:32]


def _tokens_content(values: Values) -> str:
    """The same of the token log-probs, which need not fit into memory."""
    count = int(values.lengths.sum())
    content = hashlib.sha256(f"{count}".encode())
    for start in range(0, count, _TOKENS_AT_A_TIME):
        content.update(values.token_logps[start : min(start + _TOKENS_AT_A_TIME, count)].tobytes())
    return content.hexdigest()[:32]
