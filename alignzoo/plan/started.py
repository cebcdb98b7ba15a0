"""The content of ``plan.yaml``, and that it still is what the run was started with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.base.checkpoints import planned_values
from alignzoo.base.safe_yaml import YAMLFault, read_yaml
from alignzoo.base.stored import unsealed, value_digest
from alignzoo.contract.card import WEIGHT
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError, DamagedError

PLAN_FILE = "plan.yaml"


def stated_methods(content: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The methods of a plan's content, by kind; a kind that is newer than the plan has none."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS.values():
        stated = content.get(kind.name) or []
        first = stated if isinstance(stated, list) else [stated]
        found[kind.name] = [*first, *(content.get(kind.others) or [] if kind.others else [])]
    return found


def methods_to_state(methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The other way round: a list of a kind that stacks, else the first method, and what stands beside it under a key
    of its own."""
    content: dict[str, Any] = {}
    for kind in KINDS.values():
        stated = list(methods.get(kind.name, ()))
        if kind.multiplicity == "stack":
            content[kind.name] = stated
            continue
        content[kind.name] = stated[0] if stated else None
        if kind.others:
            content[kind.others] = stated[1:]
    return content


def stated_values(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options of the methods, then settings, each as ``value`` and ``from``, by the words that set them."""
    stated: dict[str, dict[str, Any]] = {}
    for kind, methods in stated_methods(content).items():
        for method in methods:
            qualified = len(methods) > 1 or KINDS[kind].multiplicity == "stack"
            prefix = f"{kind}.{method['name']}" if qualified else kind
            stated |= {f"{prefix}.{name}": value for name, value in method["options"].items()}
            if WEIGHT in method:
                stated[f"{prefix}.{WEIGHT}"] = method[WEIGHT]
    settings = {name: value for name, value in content["settings"].items() if name not in KINDS}
    return {**stated, **settings}


def plain_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """Methods and values of a plan by the words that set them."""
    methods: dict[str, Any] = {}
    for kind, stated in stated_methods(content).items():
        names = [method["name"] for method in stated]
        one = not KINDS[kind].several or (KINDS[kind].multiplicity == "mixture" and len(names) == 1)
        methods[kind] = next(iter(names), None) if one else names
    return methods | {word: stated["value"] for word, stated in stated_values(content).items()}


def plan_as_started(folder: Path) -> dict[str, Any]:
    """The content of a run's ``plan.yaml``.

    Raises:
        AlignzooError: it was edited since, or is damaged.
    """
    path = folder / PLAN_FILE
    hint = "restore it, or start a new run with another --out: a run keeps its original plan"
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise DamagedError(path, "it contains no plan")
        _refuse_edits(content, folder)
        return unsealed(content, path)
    except DamagedError as error:
        raise DamagedError(path, error.reason, hint=hint) from error
    except YAMLFault as error:
        raise DamagedError(path, str(error).removeprefix(str(path)).lstrip(": "), hint=hint) from error


def _refuse_edits(content: dict[str, Any], folder: Path) -> None:
    """Name the values that differ from those in the run's newest checkpoint.

    Raises:
        AlignzooError: there are some.
    """
    then = planned_values(folder)
    if then is None:
        return
    try:
        now = plain_values(content)
    except (AttributeError, KeyError, TypeError):
        now = {}
    if not now.get("loss"):  # every run has one: this is no plan, which its digest shows
        return
    changed = [word for word in {**then, **now} if value_digest(then.get(word)) != value_digest(now.get(word))]
    if changed:
        edits = ", ".join(f"{word} was {then.get(word)!r} and is {now.get(word)!r}" for word in changed)
        flags = "".join(f" --{word} {shlex.quote(str(now[word]))}" for word in changed if _is_flag_value(now.get(word)))
        raise AlignzooError(
            f"{folder / PLAN_FILE} was edited after the run started: {edits}",
            hint="a run keeps its original plan: restore it, or start a new run: "
            f"alignzoo run --recipe {shlex.quote(str(folder))}{flags}",
        )


def _is_flag_value(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)
