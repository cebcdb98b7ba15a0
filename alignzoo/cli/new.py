"""``alignzoo new KIND NAME``: writes a starter method."""

from __future__ import annotations

import os
import re
import shlex
import sys
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
"""Longest name, in characters, for which the rendered files keep to their line length."""


@cli_command("new")
@click.argument("kind", metavar=f"[{'|'.join(KINDS)}]")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="package folder [default: ./NAME]; with --file, the folder to write the file to [default: .]",
)
@click.option("--file", "single", is_flag=True, help="write one file, NAME.py, for `run --plugin`; nothing to install")
@json_option
def command(kind: str, name: str, out: Path | None, single: bool, as_json: bool) -> None:
    """Write a working starter method of a KIND, called NAME.

    It is a small package with the method, its card, tests and a README; existing files are never overwritten.
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
            f"{name!r} is not a valid method name: use lower-case letters, digits and dashes, not starting with a dash",
            hint=f"for example {usable}" if usable else "for example my-method",
        )
    if len(name) > LONGEST:
        raise UsageError(
            f"{name!r} is too long for a method name: {len(name)} characters, at most {LONGEST}",
            hint="names are typed on command lines; put details in the card's summary",
        )
    return name


def _check_free(scaffold: Scaffold) -> None:
    kind = KINDS[scaffold.kind]
    if kind.multiplicity == "stack" and scaffold.name == NONE:
        raise UsageError(f"`--{kind.name} {NONE}` means no {kind.noun}", hint="choose another NAME")
    for plugin, method in registry().entries(scaffold.kind):
        if scaffold.name in (method.name, *method.aliases):
            raise UsageError(
                f"{scaffold.kind} {scaffold.name!r} already exists, in {plugin.distribution}",
                hint="choose another NAME",
            )


def _write_package(scaffold: Scaffold, folder: Path) -> tuple[Path, list[str], list[str]]:
    """The folder, its files and the next steps."""
    if _importable(scaffold.package):
        raise UsageError(f"a package {scaffold.package!r} already exists", hint="choose another NAME")
    if os.path.lexists(folder) and not (folder.is_dir() and not _entries(folder)):
        what = "is not empty" if folder.is_dir() else "already exists"
        raise UsageError(f"{folder} {what}", hint="choose another folder with --out; nothing is overwritten")
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
    """The folder, its one new file and the next steps."""
    file = folder / f"{scaffold.name}.py"
    module = scaffold.name.replace("-", "_")  # the name under which `--plugin` imports it
    if os.path.lexists(file):
        raise UsageError(f"{file} already exists", hint="choose another NAME or --out; nothing is overwritten")
    if _importable(module):
        raise UsageError(f"{file.name} would shadow the existing module {module!r}", hint="choose another NAME")
    _check_parent(folder)
    try:
        write_file(file, scaffold.single_file())
    except OSError as error:
        raise _cannot_write(file, error) from error
    steps = [f"alignzoo check {_word(file)}", f"alignzoo run --plugin {_word(file)} {scaffold.run_words}"]
    return folder, [file.name], steps


def _check_parent(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}", hint="create it first, or choose another with --out")


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}", hint="choose another folder with --out") from error


def _cannot_write(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {path}: {error.strerror or error}", hint="choose another folder with --out")


def _importable(module: str) -> bool:
    """Whether Python finds a module of this name; a plugin file that this process has loaded does not count."""
    return any(finder.find_spec(module, None) is not None for finder in sys.meta_path)


def _word(path: Path) -> str:
    """A path quoted for the command line; with ``./`` where it could be taken for a name."""
    text = str(path)
    return shlex.quote(text if path.is_absolute() or text.startswith((".", os.sep)) else f"./{text}")
