"""Classes and functions as the documentation shows them: exact signatures and docstrings from the source, no bodies."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any


def class_skeleton(cls: type) -> list[str]:
    """A Python block: the class with its docstring, its annotated fields, and its public methods with theirs."""
    node = _class(cls)
    lines = [f"class {node.name}:", *textwrap.indent("\n".join(_docstring(node)), "    ").splitlines()]
    fields = [
        ast.unparse(item).replace("'", '"')
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and "ClassVar" not in ast.unparse(item.annotation)
        and not ast.unparse(item.target).startswith("_")
    ]
    if fields:
        lines += ["", *(f"    {field}" for field in fields)]
    for function in _functions(node):
        lines += ["", *textwrap.indent("\n".join(function), "    ").splitlines()]
    return ["```python", *lines, "```"]


def attributes_of(cls: type) -> dict[str, str]:
    """The ``Attributes`` section of a class's docstring: name -> text."""
    _, _, section = plain(inspect.getdoc(cls) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for line in textwrap.dedent(section).splitlines():
        name, colon, text = line.partition(": ")
        if colon and not line.startswith(" "):
            found.update(dict.fromkeys(name.split(", "), text))
            last = name
        elif line.strip():
            found[last] += f" {line.strip()}"
    return {name: text.rstrip(".") for name, text in found.items()}


def methods_of(cls: type) -> list[str]:
    """A Python block: the public methods alone."""
    return [
        "```python",
        *"\n\n\n".join("\n".join(function) for function in _functions(_class(cls))).splitlines(),
        "```",
    ]


def signature_of(function: Callable[..., Any]) -> str:
    """``def name(arguments) -> result`` as the source has it, without decorators."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    return _head(node)


def prose(function: Any) -> list[str]:
    """A docstring as Markdown paragraphs."""
    paragraphs = plain(inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(textwrap.fill(paragraph, 120) for paragraph in paragraphs).splitlines()


def plain(text: str) -> str:
    """Sphinx roles and double back-ticks as Markdown has them."""
    text = re.sub(r":\w+:`(~?)([^`]+)`", lambda m: f"`{m[2].rpartition('.')[2] if m[1] else m[2]}`", text)
    return text.replace("``", "`")


def _class(cls: type) -> ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def _functions(node: ast.ClassDef) -> list[list[str]]:
    return [
        [*_decorators(item), f"{_head(item)}:", *textwrap.indent("\n".join(_docstring(item)), "    ").splitlines()]
        for item in node.body
        if isinstance(item, ast.FunctionDef) and (not item.name.startswith("_") or item.name == "__call__")
    ]


def _decorators(node: ast.FunctionDef) -> list[str]:
    return [f"@{ast.unparse(decorator)}" for decorator in node.decorator_list]


def _head(node: ast.FunctionDef) -> str:
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({ast.unparse(node.args)}){result}"


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    text = plain(ast.get_docstring(node) or "")
    if not text:
        return ["..."]
    quote = '"""'
    return f"{quote}{text}{quote}".splitlines() if "\n\n" not in text else [*f"{quote}{text}".splitlines(), quote]
