"""The content of ``plan.yaml``, and that it still is what the run was started with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.base.safe_yaml import YAMLFault, read_yaml
from alignzoo.base.stored import unsealed, value_digest
from alignzoo.errors import AlignzooError, DamagedError

PLAN_FILE = "plan.yaml"


def stated_values(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options of the methods, then settings, each as ``value`` and ``from``, by the words that set them."""
    stated = {f"loss.{name}": value for name, value in content["loss"]["options"].items()}
    for method in content["robust"]:
        stated |= {f"robust.{method['name']}.{name}": value for name, value in method["options"].items()}
    controllers = [content["geometry"], *content["companions"]]
    for method in controllers:
        prefix = "geometry" if len(controllers) == 1 else f"geometry.{method['name']}"
        stated |= {f"{prefix}.{name}": value for name, value in method["options"].items()}
    if content["reward"] is not None:
        stated |= {f"reward.{name}": value for name, value in content["reward"]["options"].items()}
    return {**stated, **content["settings"]}


def plain_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """Methods and values of a plan by the words that set them."""
    reward = content["reward"]
    methods = {
        "loss": content["loss"]["name"],
        "robust": [method["name"] for method in content["robust"]],
        "geometry": [method["name"] for method in (content["geometry"], *content["companions"])],
        "reward": None if reward is None else reward["name"],
    }
    return methods | {word: stated["value"] for word, stated in stated_values(content).items()}


def plan_as_started(folder: Path) -> dict[str, Any]:
    """The content of a run's ``plan.yaml``.

    Raises:
        AlignzooError: it was edited since, or is damaged.
    """
    path = folder / PLAN_FILE
    hint = "restore it, or start a new run with another --out: a run keeps the plan that it was started with"
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise DamagedError(path, "it holds no plan")
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
    from alignzoo.train.checkpoint import planned_values

    then = planned_values(folder)
    if then is None:
        return
    try:
        now = plain_values(content)
    except (AttributeError, KeyError, TypeError):
        return  # not a plan at all: its digest tells
    changed = [word for word in {**then, **now} if value_digest(then.get(word)) != value_digest(now.get(word))]
    if changed:
        edits = ", ".join(f"{word} was {then.get(word)!r} and is {now.get(word)!r}" for word in changed)
        flags = "".join(f" --{word} {shlex.quote(str(now[word]))}" for word in changed if _is_flag_value(now.get(word)))
        raise AlignzooError(
            f"{folder / PLAN_FILE} was edited after the run was started: {edits}",
            hint="a run keeps the plan that it was started with: restore it, or start a new run: "
            f"alignzoo run --recipe {shlex.quote(str(folder))}{flags}",
        )


def _is_flag_value(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)
