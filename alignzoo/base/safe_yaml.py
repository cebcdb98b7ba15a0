"""Every YAML file is read here: plain data only, with size limits, no duplicate keys, and line numbers in errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from alignzoo.base.shown import shown

MOST_BYTES = 250_000
DEEPEST = 50
_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("map", "seq", "str", "int", "float", "bool", "null")}


class YAMLFault(Exception):
    """A file that cannot be read as plain YAML: ``FILE:LINE: what is wrong``."""


def read_yaml(path: Path, *, functions: bool = False) -> Any:
    """The content of a YAML file; dates stay text.

    Args:
        functions: read lm-eval's ``!function module.name`` as the text ``module.name``; nothing is imported.

    Raises:
        YAMLFault: it cannot be read, is too large, nested too deeply or not YAML; has a duplicate key, a key that is
            not a string, an alias or a tag.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise YAMLFault(f"{path}: cannot be read ({error.strerror})") from error
    if len(raw) > MOST_BYTES:
        raise YAMLFault(f"{path}: larger than {MOST_BYTES:,} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise YAMLFault(f"{path}:{line}: not UTF-8 text") from error
    return _parsed(text, path, _TaskLoader if functions else _Loader)


def _parsed(text: str, path: Path, loader_class: type[_Loader]) -> Any:
    try:
        loader = loader_class(text)
        try:
            return loader.get_single_data()
        except ValueError as error:  # an escape such as "\\U00110000" is not caught inside of PyYAML
            raise YAMLFault(f"{path}:{loader.line + 1}: {error}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YAMLFault(f"{path}:{line}: {shown(text[error.position])} is not a printable character") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise YAMLFault(f"{path}{f':{mark.line + 1}' if mark else ''}: {problem}") from error


class _Loader(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _fault(f"the alias *{event.anchor} is not supported: write out its value", event.start_mark)
        if self._depth >= DEEPEST:
            raise _fault(f"nested more than {DEEPEST} levels deep", event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in _TAGS:
            name = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise _fault(f"the tag {shown(name)} is not supported, only plain values are", node.start_mark)
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            raise _fault("a value contains a NUL character", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, KeyError) as error:
            raise _fault(f"{shown(node.value)} is not a valid {_TAGS[node.tag]}", node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if _TAGS.get(key.tag) != "str":
                key_text = shown(key.value) if isinstance(key, yaml.ScalarNode) else "here"
                raise _fault(f"the key {key_text} is not a string (quote it if it should be one)", key.start_mark)
            line = key.start_mark.line + 1
            if key.value in lines:
                first = lines[key.value]
                where = f"already on line {first}" if first != line else "twice on this line"
                raise _fault(f"the key {shown(key.value)} is {where}", key.start_mark)
            lines[key.value] = line
        return super().construct_mapping(node, deep)


class _TaskLoader(_Loader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag == "!function" and isinstance(node, yaml.ScalarNode):
            return str(node.value)
        return super().construct_object(node, deep)


# "2024-13-45" is a valid name; no setting is a date.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)
