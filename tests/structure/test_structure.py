"""Files and functions stay short enough to be read at once; the rooms are held by import-linter, without exceptions."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 300, 60
LONG_FILES: dict[str, str] = {}
"""File -> why it is longer."""
LONG_FUNCTIONS: dict[str, str] = {}
"""``file:function`` -> why it is longer."""


def sources() -> Iterator[tuple[str, str]]:
    for folder in ("alignzoo", "plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{name}:{node.name}", node


def test_files_are_short() -> None:
    long = {name for name, text in sources() if text.count("\n") > MOST_LINES_OF_A_FILE}
    assert long == set(LONG_FILES)


def test_functions_are_short() -> None:
    long = {
        name
        for name, node in functions()
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    }
    assert long == set(LONG_FUNCTIONS)


def test_public_functions_and_classes_say_what_they_are() -> None:
    silent = [
        f"{name}:{node.name}"
        for name, text in sources()
        for node in ast.parse(text).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def configured() -> dict[str, Any]:
    linter: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]
    return linter


def test_the_rooms_have_no_exceptions() -> None:
    contracts = configured()["contracts"]
    assert {"layers", "forbidden"} <= {contract["type"] for contract in contracts}
    assert not any("ignore_imports" in contract for contract in contracts)
    assert not any(contract.get("allow_indirect_imports") for contract in contracts)
    [rooms] = [contract for contract in contracts if contract["type"] == "layers"]
    assert rooms["exhaustive"], "a new room is given its place"
    assert "lint-imports" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_built_in_plugin_is_known_to_the_contracts() -> None:
    packages = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    linter = configured()
    assert set(linter["root_packages"]) == {"alignzoo", *packages}
    [no_plugin] = [one for one in linter["contracts"] if one.get("source_modules") == ["alignzoo"]]
    assert set(no_plugin["forbidden_modules"]) == packages
