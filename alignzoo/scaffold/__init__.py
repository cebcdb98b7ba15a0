"""Starter methods: the files of a small installable package, or a single file, rendered from templates.

The result works unchanged and passes the contract tests, so its author can change one thing at a time.
"""

from __future__ import annotations

import builtins
import keyword
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from alignzoo.contract.card import PLUGIN_API
from alignzoo.contract.kinds import KINDS
from alignzoo.plugin.build import readers
from alignzoo.plugin.registry import registry

TEMPLATES = Path(__file__).parent / "templates"
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Scaffold:
    """A method's names and files.

    Args:
        kind: what it is.
        name: the method's name, lower-case letters, digits and dashes.
    """

    kind: str
    name: str

    @property
    def words(self) -> list[str]:
        """The parts of the name, without a leading ``alignzoo``, which the distribution's name already has."""
        words = [word for word in self.name.split("-") if word]
        return words[1:] if words[0] == "alignzoo" and len(words) > 1 else words

    @property
    def distribution(self) -> str:
        return "-".join(["alignzoo", *self.words])

    @property
    def package(self) -> str:
        """The import name of the package."""
        return "_".join(["alignzoo", *self.words])

    @property
    def module(self) -> str:
        """The module of the method's file in its package."""
        stem = "_".join(self.words)
        # A submodule becomes an attribute of its package: it must not hide what the package's own lines name.
        usable = stem.isidentifier() and not keyword.iskeyword(stem) and stem not in _names_in("init.py")
        return stem if usable else f"method_{stem}"

    @property
    def class_name(self) -> str:
        camel = "".join(word[:1].upper() + word[1:] for word in self.words)
        camel = camel if camel.isidentifier() else f"Method{camel}"
        taken = _names_in(f"{KINDS[self.kind].template}.py") | set(dir(builtins))
        return camel if not {camel, f"{camel}Options"} & taken else f"{camel}{self.kind.capitalize()}"

    @property
    def run_words(self) -> str:
        """A short run with the method, as arguments of ``alignzoo run``; with what its kind needs beside it, and with a
        method that needs it where something has to."""
        kind = KINDS[self.kind]
        needing = sorted(readers(kind, registry()), key=lambda card: not KINDS[card.kind].around_first)
        beside = [f"--{card.kind} {card.name}" for card in needing[:1]]  # a wrapper leaves the loss as it is
        words = [f"--{self.kind} {self.name}", *beside, kind.beside, f"--max-steps 20 --out runs/{self.name}"]
        return " ".join(filter(None, words))

    def package_files(self) -> dict[str, str]:
        """Text of every file of the package by its path in it, with ``/``."""
        return {
            "pyproject.toml": self._render("pyproject.toml"),
            "README.md": self._render("README.md"),
            ".gitignore": self._render("gitignore"),
            f"{self.package}/__init__.py": self._render("init.py"),
            f"{self.package}/{self.module}.py": self._render(
                f"{KINDS[self.kind].template}.py", plugin_names="Card, Options"
            ),
            f"tests/test_{self.module}.py": self._render(f"{KINDS[self.kind].template}_test.py"),
        }

    def single_file(self) -> str:
        """The text of one file with class, card and hook, for ``alignzoo run --plugin FILE``."""
        method = self._render(f"{KINDS[self.kind].template}.py", plugin_names="Card, Options, hookimpl")
        return method + self._render("hook.py")

    def _render(self, template: str, **more: str) -> str:
        values = {
            "noun": KINDS[self.kind].phrase,
            "name": self.name,
            "class": self.class_name,
            "api": str(PLUGIN_API),
            "distribution": self.distribution,
            "entry_point": "-".join(self.words),
            "package": self.package,
            "module": self.module,
            "run_words": self.run_words,
            **more,
        }
        return _PLACEHOLDER.sub(lambda found: values[found[1]], _template(template))


def write_folder(folder: Path, files: dict[str, str]) -> None:
    """Write a folder atomically.

    Args:
        folder: does not exist, or is an empty folder; its parent exists.
        files: text by path in the folder, with ``/``.

    Raises:
        OSError: it cannot be written; then nothing is left behind.
    """
    existing = folder.is_dir()
    draft = (folder if existing else folder.parent) / f".{folder.name}-{os.getpid()}"
    moved: list[Path] = []
    try:
        for path, text in files.items():
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        if not existing:
            draft.rename(folder)
            return
        for entry in sorted(draft.iterdir()):  # move into the folder, which may be someone's working directory
            moved.append(entry.rename(folder / entry.name))
    except BaseException:
        for entry in moved:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_file(file: Path, text: str) -> None:
    """Write a new file atomically.

    Raises:
        OSError: it cannot be written; then nothing is left behind.
    """
    draft = file.parent / f".{file.name}-{os.getpid()}"
    try:
        draft.write_text(text, encoding="utf-8")
        draft.rename(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")


def _names_in(template: str) -> set[str]:
    """Every word of a template: names that rendered values must not shadow."""
    return set(re.findall(r"\w+", _PLACEHOLDER.sub("", _template(template))))
