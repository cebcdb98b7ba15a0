"""Suites of prompts: a name, what it measures, and where its prompts come from. One suite is one lm-eval task file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.base.files import local_path
from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.contract.paper import Paper
from alignzoo.errors import BrokenPluginError, UsageError
from alignzoo.evaluate.suites.suite_file import SuiteFacts, SuiteMeasure, read_suite_file
from alignzoo.plugin.faults import is_file
from alignzoo.plugin.registry import registry

DATA_DIR = "ALIGNZOO_DATA_DIR"
"""The environment variable that names the folder of local data."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a suite.

    Attributes:
        id: the publisher's, or the row's number and a hash of its text; unique within the suite.
        messages: what to send, ``{"role": …, "content": …}`` each.
        request: the request in plain text, without context.
        category: as the publisher names it.
        context: a text that the request refers to.
        reference: a good answer.
        facts: further columns that the suite keeps.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    request: str
    category: str | None = None
    context: str | None = None
    reference: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """The prompts of a suite as they were found.

    Attributes:
        origin: the files, or the dataset of the hub, or the function.
        notes: what a reader of the figures must know: rows left out, a part of the suite only, ….
    """

    prompts: list[Prompt]
    origin: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A suite of prompts: the facts of its file."""

    name: str
    path: Path
    facts: SuiteFacts
    max_new_tokens: int

    @property
    def title(self) -> str:
        return self.facts.title

    @property
    def measures(self) -> SuiteMeasure:
        """``attack_success`` (harmful requests) or ``over_refusal`` (harmless ones)."""
        return self.facts.measures

    @property
    def counts(self) -> int | None:
        """How many prompts the whole suite has; None if its publisher does not say."""
        return self.facts.prompts

    @property
    def licence(self) -> str:
        return self.facts.licence

    @property
    def hub(self) -> str | None:
        """The dataset of the hub, ``id`` or ``id:config``."""
        for source in self.facts.sources:
            if source.hub is not None:
                return source.dataset
        return None

    @property
    def paper(self) -> Paper | None:
        return self.facts.paper

    @property
    def judge(self) -> str:
        """How its paper judges responses."""
        return self.facts.judge

    @property
    def default_judge(self) -> str | None:
        """The judge to use when none is asked for; None leaves the choice to the caller."""
        return self.facts.default_judge

    def load(self, data_dir: Path | None = None, limit: int | None = None, seed: int = 0) -> Loaded:
        """The prompts with where they were found; looked for in ``data_dir``, then in ``$ALIGNZOO_DATA_DIR``, then at
        the hub (or in its cache).

        Args:
            limit: only the first prompts, as ``lm_eval --limit``.
            seed: of prompts that are generated.

        Raises:
            DataError: not found (what to fetch, and where to put it), or malformed (file, line and column).
        """
        from alignzoo.evaluate.suites.readers import load

        found = load(self.name, self.facts, data_folders(data_dir), seed)
        return found if limit is None else Loaded(found.prompts[:limit], found.origin, found.notes)

    def prompts(self, data_dir: Path | None = None, limit: int | None = None, seed: int = 0) -> list[Prompt]:
        """The prompts of :meth:`load`, which says what it raises."""
        return self.load(data_dir, limit, seed).prompts

    def digest(self, prompts: Sequence[Prompt]) -> str:
        """A hash of the prompts and of what the suite measures."""
        parts = [self.name, self.measures, [[prompt.id, list(prompt.messages)] for prompt in prompts]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def suite_names() -> list[str]:
    """The suites of alignzoo and the installed plugins, by name."""
    return sorted({name for _, name, _ in registry().suites()})


def find_suite(name: str) -> Suite:
    """The suite given by name (or ``distribution:name``) or by the path of its file.

    Raises:
        UsageError: neither, with the nearest names; two plugins provide that name; or the file is no suite.
        BrokenPluginError: a plugin's file is no suite.
    """
    path = registry().find_suite(name)
    if path is not None:
        try:
            return read_suite(path)
        except UsageError as error:
            raise BrokenPluginError(f"suite {name!r}: {error.message}", hint=error.hint) from error
    if name.endswith((".yaml", ".yml")) and is_file(local_path(name)):
        return read_suite(local_path(name))
    raise UsageError(
        f"unknown suite {shown(name)}",
        hint=suggest(name, suite_names()) or "`alignzoo suites` lists them; a suite of your own: the path of its YAML",
    )


def read_suite(path: Path) -> Suite:
    """The suite of a file, which bears the name of its task.

    Raises:
        UsageError: the file is no suite.
    """
    name, facts, most = read_suite_file(path)
    if name != path.stem:
        raise UsageError(f"{path}: task is {name!r}, but the file is named {path.stem!r}", hint="give both one name")
    return Suite(name, path, facts, most)


def data_folders(data_dir: Path | None) -> list[Path]:
    """Where local data is looked for, in this order.

    Raises:
        UsageError: a folder does not exist.
    """
    named = [
        ("--data-dir", data_dir),
        (f"${DATA_DIR}", Path(os.environ[DATA_DIR]) if os.environ.get(DATA_DIR) else None),
    ]
    folders = []
    for origin, folder in named:
        if folder is None:
            continue
        path = local_path(folder)
        if not path.is_dir():
            raise UsageError(f"{origin}: {path} is not a folder", hint="name the folder that holds the data's files")
        folders.append(path)
    return folders
