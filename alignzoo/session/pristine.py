"""A model's files as this process has read them before: the tokenizer, and the weights as they are on disk.

Only small local models: what is kept takes memory beside the run's own copy, and a hub id can change its files.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.memo import Memo
from alignzoo.data.content import settled
from alignzoo.data.digests import tokenizer_digest
from alignzoo.model.adapters import check_quantisation
from alignzoo.model.load import as_policy, load_base, load_policy, load_tokenizer
from alignzoo.model.source import ModelSource
from alignzoo.plan.settings import Settings

MOST_BYTES = 256 << 20
"""Size of a model's files up to which its weights are kept."""

States = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class _Tokenizer:
    tokenizer: Any
    digest: str


def tokenizer_of(memo: Memo, source: ModelSource, settings: Settings) -> Any:
    """The model's tokenizer, as it was loaded: one that has changed since is loaded again."""

    def load() -> _Tokenizer:
        tokenizer = load_tokenizer(source, settings)
        return _Tokenizer(tokenizer, tokenizer_digest(tokenizer))

    states = file_states(source, settings) if memo.limit else None  # nothing would read it again
    if states is None:
        return load_tokenizer(source, settings)
    kept = memo.get("tokenizer", states, load)
    return kept.tokenizer if tokenizer_digest(kept.tokenizer) == kept.digest else load_tokenizer(source, settings)


def policy_of(memo: Memo, source: ModelSource, settings: Settings) -> Any:
    """A new policy with the weights on disk; see :func:`~alignzoo.model.load.load_policy`.

    A first run gets a copy too: results must not depend on where in memory weights lie.
    """
    states = file_states(source, settings)
    if states is None or settings.quantize != "none" or sum(state[1] for state in states) > MOST_BYTES:
        return load_policy(source, settings)
    check_quantisation(settings, source)
    base = memo.get("weights", (states, settings.weights), lambda: load_base(source, settings))
    return as_policy(copy.deepcopy(base), source, settings)


def file_states(source: ModelSource, settings: Settings) -> States | None:
    """The model's files in their current state (see :func:`~alignzoo.data.content.loaded_digest` for why that is as
    good as their content); None if it cannot be told apart from the next one."""
    folders = [Path(folder) for folder in (source.path, source.adapter) if folder is not None]
    if settings.trust_remote_code or source.gguf is not None or not all(folder.is_dir() for folder in folders):
        return None
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())
    if not files or not settled(files):
        return None
    return tuple(
        (str(file.resolve()), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
        for file in files
        for state in [file.stat()]
    )
