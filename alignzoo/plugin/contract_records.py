"""Contract results on this machine: written by ``alignzoo check``, shown by ``alignzoo ls``."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from alignzoo.base.cache import cache_root
from alignzoo.base.files import clear_leftovers, write_text
from alignzoo.contract.card import Card
from alignzoo.plugin.plugin import Plugin
from alignzoo.version import __version__

State = Literal["passed", "failed", "changed", "unchecked"]


class ContractRecord(BaseModel):
    """The last check of a method.

    Attributes:
        failed: the rules it broke; none if it passed.
        expected: the rules its card declares it breaks.
        date: UTC, ISO 8601, to the second.
        hash: of the plugin's files; a record of other files says nothing about these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    failed: list[str]
    expected: list[str]
    date: str
    version: str
    hash: str
    alignzoo: str

    def state(self, plugin: Plugin) -> State:
        """What the record says about the plugin as it is now."""
        if (self.hash, self.alignzoo) != (plugin.fingerprint(), __version__):
            return "changed"
        return "failed" if self.failed else "passed"


def save_record(plugin: Plugin, card: Card, *, failed: list[str], expected: list[str]) -> None:
    """Keep the outcome of a check.

    Raises:
        OSError: the cache folder cannot be written.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = ContractRecord(
        failed=failed,
        expected=expected,
        date=now,
        version=plugin.version,
        hash=plugin.fingerprint(),
        alignzoo=__version__,
    )
    path = _file_of(plugin, card)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path.parent)
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_record(plugin: Plugin, card: Card) -> ContractRecord | None:
    """The last check of a method on this machine, None if there was none."""
    try:
        return ContractRecord.model_validate_json(_file_of(plugin, card).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or damaged: as good as absent
        return None


def _file_of(plugin: Plugin, card: Card) -> Path:
    home = plugin.distribution
    if plugin.file is not None:  # files of one name in two folders are two plugins
        home += f"-{hashlib.sha256(str(plugin.file).encode()).hexdigest()[:8]}"
    return cache_root() / "contract" / home / f"{card.kind}-{card.name}.json"
