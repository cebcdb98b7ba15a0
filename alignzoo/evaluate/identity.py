"""Which model gave a response: a digest of the bytes of its files, so kept responses are known without loading it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from alignzoo.base.cache import cache_folder
from alignzoo.base.files import local_path, write_json
from alignzoo.base.stored import bytes_digest, file_digest, read_sealed, sealed, value_digest
from alignzoo.data.digests import tokenizer_digest
from alignzoo.errors import DamagedError
from alignzoo.model.source import ModelSource, file_of
from alignzoo.model.weights import config_digest, fingerprint
from alignzoo.session.session import Session

_CACHE = "file-digests"
_SETTLED = 3.0
"""Seconds after a file's last change before its digest is kept: a change in the same tick would not show."""
_PATTERNS = ("*.safetensors", "config.json", "generation_config.json", "adapter_config.json", "*.py")


def model_identity(session: Session) -> str:
    """A hash of everything in a model that its responses depend on: weights, adapter, config, tokenizer; 32 hex digits.

    From the bytes of its files, each read once and then recognised by size and times; from the tensors of a policy
    that was put into the session.

    Raises:
        ModelError: there is no such model.
    """
    tokenizer = tokenizer_digest(session.tokenizer)
    if "policy" in vars(session):
        return value_digest([fingerprint(session.policy), config_digest(session.policy), tokenizer])
    files = _files(session.source)
    if not files:  # a hub model that is not in the cache yet: loading it brings it there
        _ = session.policy
        files = _files(session.source)
    return value_digest([[(name, _digest_of(path)) for name, path in files], tokenizer])


def _files(source: ModelSource) -> list[tuple[str, Path]]:
    """The files of a model with their names, if its weights are on this machine; else none."""
    if source.gguf is not None:
        return [(source.gguf, local_path(source.path) / source.gguf)]
    found: list[tuple[str, Path]] = []
    for name in (source.path, source.adapter):
        if name is None:
            continue
        config = file_of(name, "adapter_config.json" if name == source.adapter else "config.json")
        if config is None:
            return []
        files = sorted({path for pattern in _PATTERNS for path in config.parent.glob(pattern)})
        if not any(path.suffix == ".safetensors" for path in files):
            return []
        found += [(path.name, path) for path in files]
    return found


def _digest_of(path: Path) -> str:
    """The digest of a file's bytes, from the cache if it has not changed since."""
    facts = path.stat()
    now = {
        "file": str(path.resolve()),
        "size": facts.st_size,
        "inode": facts.st_ino,
        "modified": facts.st_mtime_ns,
        "changed": facts.st_ctime_ns,
    }
    kept = cache_folder(_CACHE) / f"{bytes_digest(str(path.resolve()).encode())}.json"
    try:
        known: dict[str, Any] = read_sealed(kept)
    except DamagedError:
        known = {}
    if all(known.get(name) == value for name, value in now.items()) and isinstance(known.get("content"), str):
        return str(known["content"])
    content = file_digest(path)
    if time.time() - max(facts.st_mtime, facts.st_ctime) > _SETTLED:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, sealed({**now, "content": content}))
    return content
