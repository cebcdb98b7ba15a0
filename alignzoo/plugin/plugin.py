"""One plugin: its origin, what it provides, or why it does not load."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.contract.card import Card, Composition, Extension

SLOW_SECONDS = 1.0
"""A plugin that takes longer to load gets a warning: every command waits for it."""

OWN_DISTRIBUTION = "alignzoo"
"""The distribution of the plugins that come with alignzoo."""


@dataclass
class Plugin:
    """One entry point or file: its origin, what it provides, or why it does not load.

    Attributes:
        distribution: its distribution; for a file, the file's name.
        file: the file it was loaded from with ``--plugin``, else None.
        recipes: recipe name -> YAML file.
        suites: suite name -> YAML file.
        error: why it cannot be used.
        warnings: problems for its author to fix; excludes the loading time, which depends on the machine.
        seconds: wall-clock loading time.
    """

    distribution: str
    version: str
    entry_point: str
    module: str
    methods: list[Card | Composition] = field(default_factory=list)
    extensions: list[Extension] = field(default_factory=list)
    recipes: dict[str, Path] = field(default_factory=dict)
    suites: dict[str, Path] = field(default_factory=dict)
    file: Path | None = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _fingerprint: str | None = field(default=None, repr=False)

    @property
    def provides(self) -> bool:
        """Whether it provides anything."""
        return bool(self.methods or self.extensions or self.recipes or self.suites)

    @property
    def slow(self) -> str | None:
        """Warning about a slow plugin."""
        return (
            f"took {self.seconds:.1f} s to load, and every command waits for it"
            if self.seconds > SLOW_SECONDS
            else None
        )

    @property
    def remarks(self) -> list[str]:
        """All warnings for its author."""
        return [*self.warnings, *([self.slow] if self.slow else [])]

    @property
    def label(self) -> str:
        """Distribution and version, as messages name it."""
        return f"{self.distribution} {self.version}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        return {
            "distribution": self.distribution,
            "version": self.version,
            "entry_point": self.entry_point,
            "module": self.module,
            "file": str(self.file) if self.file else None,
            "methods": [f"{method.kind}/{method.name}" for method in self.methods],
            "extensions": [f"{card.kind}/{card.name}" for card in self.extensions],
            "recipes": sorted(self.recipes),
            "suites": sorted(self.suites),
            "error": self.error,
            "warnings": self.remarks,
            "seconds": round(self.seconds, 3),
        }

    def identity(self) -> dict[str, Any]:
        """What a run records of a plugin that it uses."""
        return {
            "distribution": self.distribution,
            "version": self.version,
            "entry_point": self.entry_point,
            "file": str(self.file) if self.file else None,
            "hash": self.fingerprint(),
        }

    def files(self) -> list[Path]:
        """The Python and YAML files of the plugin's package, or its one file."""
        return [path for _, path in self._named_files()]

    def _named_files(self) -> list[tuple[str, Path]]:
        """The files with their paths inside the plugin; unreadable ones are left out."""
        if self.file is not None:
            return [(self.file.name, self.file)]
        try:
            spec = importlib.util.find_spec(self.module.partition(".")[0])
        except (ImportError, ValueError):
            return []
        if spec is None:
            return []
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        if not folders:
            return [(Path(spec.origin).name, Path(spec.origin))] if spec.origin else []
        return sorted(
            (str(path.relative_to(folder)), path)
            for folder in folders
            for path in folder.rglob("*")
            if path.suffix in (".py", ".yaml") and path.is_file()
        )

    def fingerprint(self) -> str:
        """A hash over those files: 16 hexadecimal digits."""
        if self._fingerprint is None:
            total = hashlib.sha256()
            for name, path in self._named_files():
                try:
                    content = path.read_bytes()
                except OSError:
                    content = b"unreadable"
                total.update(f"{name}\0{len(content)}\0".encode())
                total.update(content)
            self._fingerprint = total.hexdigest()[:16]
        return self._fingerprint

    def may_provide(self, name: str) -> bool:
        """Whether a plugin that failed to load looks like the home of ``name``: by its names or its text. A file that
        was given on the command line always does."""
        if self.file is not None or name in (self.distribution, self.entry_point):
            return True
        words = (f'"{name}"', f"'{name}'")
        for path in self.files():
            with contextlib.suppress(OSError):
                text = path.read_text(encoding="utf-8", errors="replace")
                if any(word in text for word in words):
                    return True
        return False
