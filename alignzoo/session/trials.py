"""What packing's trial has shown, kept between processes: the same weights, code and rows give the same numbers."""

from __future__ import annotations

import inspect
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers

from alignzoo.base.cache import cache_folder
from alignzoo.base.files import write_text
from alignzoo.base.stored import file_digest, sealed, unsealed
from alignzoo.data.collate import TokenBatch
from alignzoo.data.digests import digest
from alignzoo.errors import DamagedError
from alignzoo.logprobs.trial import Passed
from alignzoo.model.base import without_adapter
from alignzoo.model.identity import outputs_key
from alignzoo.version import __version__


class KeptTrials:
    """Trials of one model, by the rows they were made on.

    Args:
        key: what the model's numbers follow from, see :func:`trials_of`.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    def _file(self, sample: TokenBatch) -> Path:
        return cache_folder("trials") / f"{digest(self._key, sample.content())[:32]}.json"

    def of(self, sample: TokenBatch) -> Passed | None:
        """What the trial on these rows has found; None where there was none that passed, or its file is damaged."""
        path = self._file(sample)
        with suppress(OSError, ValueError, LookupError, DamagedError):
            found = unsealed(json.loads(path.read_text()), path)
            return Passed(str(found["why"]), bool(found["fused"]))
        return None

    def keep(self, sample: TokenBatch, passed: Passed) -> None:
        """Remember a trial that passed, if the cache can be written."""
        path = self._file(sample)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(sealed(passed._asdict())))


def trials_of(policy: Any, weights: str) -> KeptTrials | None:
    """The trials of a model on a CPU, before it is prepared for a launch; None where it cannot be told from another.

    Weights, configs, modules and modes decide it, and the code: versions, and the file of the model's class.

    Args:
        weights: the model's fingerprint.
    """
    key = outputs_key(policy, weights)
    if key is None or next(policy.parameters()).device.type != "cpu":
        return None
    try:
        code = file_digest(Path(inspect.getfile(type(without_adapter(policy)))))
    except (OSError, TypeError):
        return None
    versions = __version__, torch.__version__, transformers.__version__
    return KeptTrials(digest(repr(key), code, *versions))
