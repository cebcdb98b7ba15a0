"""``alignzoo new KIND NAME``: a method to start from."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from pathlib import Path

import click

from alignzoo.base.suggest import suggest
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines
from alignzoo.contract.card import NONE
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import UsageError
from alignzoo.plugin.registry import registry
from alignzoo.scaffold import Scaffold, write_file, write_folder

LONGEST = 40
"""Characters of a name: what is written then keeps to its own line length."""


@cli_command("new")
@click.argument("kind", metavar=f"[{'|'.join(KINDS)}]")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="folder of the package (default: NAME here); with --file the folder that the file goes into (default: here)",
)
@click.option("--file", "single", is_flag=True, help="one file NAME.py for `run --plugin`, nothing to install")
@json_option
def command(kind: str, name: str, out: Path | None, single: bool, as_json: bool) -> None:
    """Write a working method of a KIND to start from, called NAME.

    It is a small package with the method's file, its card, tests and a README; nothing is overwritten.
    """
    scaffold = Scaffold(_checked_kind(kind), _checked_name(name))
    _check_free(scaffold)
    if single:
        folder, files, steps = _write_single(scaffold, out or Path())
    else:
        folder, files, steps = _write_package(scaffold, out or Path(name))
    if as_json:
        print_json({"folder": str(folder), "files": files, "next": steps})
        return
    print_lines(*(str(folder / file) for file in files), "", "next:", *(f"  {step}" for step in steps))


def _checked_kind(kind: str) -> str:
    if kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r}", hint=suggest(kind, KINDS) or f"kinds: {', '.join(KINDS)}")
    return kind


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        usable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST].strip("-")
        raise UsageError(
            f"{name!r} cannot be a method's name: lower-case letters, digits and dashes, no dash in front",
            hint=f"for example {usable}" if usable else "for example my-method",
        )
    if len(name) > LONGEST:
        raise UsageError(
            f"{name!r} is too long for a method's name: {len(name)} characters, at most {LONGEST}",
            hint="it is typed on command lines; the summary on the card has room for more",
        )
    return name


def _check_free(scaffold: Scaffold) -> None:
    kind = KINDS[scaffold.kind]
    if kind.multiplicity == "stack" and scaffold.name == NONE:
        raise UsageError(f"`--{kind.name} {NONE}` means no {kind.noun} at all", hint="choose another NAME")
    for plugin, method in registry().entries(scaffold.kind):
        if scaffold.name in (method.name, *method.aliases):
            raise UsageError(
                f"there is a {scaffold.kind} {scaffold.name!r} already, from {plugin.distribution}",
                hint="choose another NAME",
            )


def _write_package(scaffold: Scaffold, folder: Path) -> tuple[Path, list[str], list[str]]:
    """The folder, its files and what to do next."""
    if _importable(scaffold.package):
        raise UsageError(f"there is a package {scaffold.package!r} already", hint="choose another NAME")
    if os.path.lexists(folder) and not (folder.is_dir() and not _entries(folder)):
        what = "is not empty" if folder.is_dir() else "exists already"
        raise UsageError(f"{folder} {what}", hint="name another folder with --out; nothing is overwritten")
    _check_parent(folder.absolute().parent)
    files = scaffold.package_files()
    try:
        write_folder(folder.absolute(), files)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    steps = [
        f"pip install -e {_word(folder)}",
        f"alignzoo check {scaffold.name}",
        f"alignzoo run {scaffold.run_words}",
    ]
    return folder, sorted(files), steps


def _write_single(scaffold: Scaffold, folder: Path) -> tuple[Path, list[str], list[str]]:
    """The folder, its one new file and what to do next."""
    file = folder / f"{scaffold.name}.py"
    module = scaffold.name.replace("-", "_")  # what `--plugin` imports it as
    if os.path.lexists(file):
        raise UsageError(f"{file} exists already", hint="choose another NAME or --out; nothing is overwritten")
    if _importable(module):
        raise UsageError(
            f"{file.name} would hide the module {module!r}, which exists already", hint="choose another NAME"
        )
    _check_parent(folder)
    try:
        write_file(file, scaffold.single_file())
    except OSError as error:
        raise _cannot_write(file, error) from error
    steps = [f"alignzoo check {_word(file)}", f"alignzoo run --plugin {_word(file)} {scaffold.run_words}"]
    return folder, [file.name], steps


def _check_parent(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", hint="create it first, or name another with --out")


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}", hint="name another folder with --out") from error


def _cannot_write(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {path}: {error.strerror or error}", hint="name another folder with --out")


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return True  # it is there, if in a strange state


def _word(path: Path) -> str:
    """A path as a word of a command line; with ``./`` where it could be taken for a name."""
    text = str(path)
    return shlex.quote(text if path.is_absolute() or text.startswith((".", os.sep)) else f"./{text}")
