"""Checkpoints that are whole or not there: written beside, flushed, then renamed; damaged ones are never picked."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from alignzoo.errors import AlignzooError, MethodError
from alignzoo.files import whole
from alignzoo.geometry.shards import whole_state
from alignzoo.run_folder import check_there, remedy

STATE_FILE = "state.json"
WEIGHTS_FILE = "weights.safetensors"
TENSORS_FILE = "optimizer_and_methods.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` optimizer steps.

    Attributes:
        weights: the trained weights by name.
        tensors: state dicts of the optimizer, the loss, the wrappers and the controller.
        facts: counters and identities, JSON-able.
    """

    step: int
    weights: dict[str, torch.Tensor]
    tensors: dict[str, Any]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write ``checkpoints/step-…`` under the run folder and drop all but the newest ``keep``.

    Raises:
        AlignzooError: it could not be written (disk full, ...); what was there before is untouched.
    """
    target = folder / "checkpoints" / f"step-{checkpoint.step:08d}"
    if target.is_dir() and _is_whole(target):
        return target
    try:
        target.parent.mkdir(exist_ok=True)
        with whole(target) as partial:
            partial.mkdir()
            save_file(checkpoint.weights, partial / WEIGHTS_FILE)
            torch.save(checkpoint.tensors, partial / TENSORS_FILE)
            sizes = {name: (partial / name).stat().st_size for name in (WEIGHTS_FILE, TENSORS_FILE)}
            state = {"step": checkpoint.step, "sizes": sizes, **checkpoint.facts}
            (partial / STATE_FILE).write_text(json.dumps(state, indent=2), encoding="utf-8")
    except (OSError, RuntimeError, SafetensorError) as error:
        check_there(folder)
        last = latest_checkpoint(folder)
        raise AlignzooError(
            f"could not save the checkpoint of step {checkpoint.step} in {target.parent}: {error}",
            hint=f"{remedy(error)} and continue with --resume {folder}"
            + (f" from step {step_of(last)}" if last else " from the start"),
        ) from error
    for old in whole_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def plain_state(method: Any, *, keep: bool = True) -> dict[str, Any]:
    """The method's state, if a checkpoint can hold it; sharded tensors are made whole, so all ranks call it.

    Args:
        keep: False on ranks that do not write: what was sharded is empty there.

    Raises:
        MethodError: it holds something that could not be read back without running code.
    """
    state: dict[str, Any] = whole_state(method.state_dict(), keep=keep)
    strange = _not_plain(state)
    if strange is not None:
        raise MethodError(
            f"{type(method).__name__}.state_dict() holds a {strange}, and a checkpoint takes tensors, numbers, "
            "strings, lists and dicts of them"
        )
    return state


def _not_plain(value: Any) -> str | None:
    """The type of the first thing in ``value`` that is not plain data."""
    if isinstance(value, dict):
        return next((found for item in (*value, *value.values()) if (found := _not_plain(item))), None)
    if isinstance(value, (list, tuple)):
        return next((found for item in value if (found := _not_plain(item))), None)
    return None if type(value) in (torch.Tensor, int, float, bool, str, type(None)) else type(value).__name__


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run folder."""
    found = whole_checkpoints(folder)
    return found[-1] if found else None


def whole_checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints, oldest first."""
    return [path for path in sorted((folder / "checkpoints").glob("step-*")) if _is_whole(path)]


def step_of(checkpoint: Path) -> int:
    """The number of optimizer steps a checkpoint's folder stands for."""
    return int(checkpoint.name.removeprefix("step-"))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        AlignzooError: a file in it is damaged.
    """
    try:
        facts = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        tensors = torch.load(path / TENSORS_FILE, map_location="cpu", weights_only=True)
        return Checkpoint(facts["step"], load_file(path / WEIGHTS_FILE), tensors, facts)
    except Exception as error:  # torch, safetensors and json each have their own
        raise AlignzooError(
            f"checkpoint {path} is damaged: {type(error).__name__}: {error}",
            hint="delete that folder; --resume then takes the checkpoint before it",
        ) from error


def _is_whole(path: Path) -> bool:
    try:
        sizes = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))["sizes"]
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False
