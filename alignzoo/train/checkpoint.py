"""Atomic checkpoints: written to a temporary folder, flushed, then renamed; every byte is checked on reading."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from alignzoo.base.checkpoints import STATE_FILE, checkpoints_of, step_of
from alignzoo.base.disk import check_there, remedy
from alignzoo.base.files import whole
from alignzoo.base.stored import file_digest, read_sealed, sealed
from alignzoo.errors import AlignzooError, DamagedError
from alignzoo.plugin.registry import resume_words
from alignzoo.report import Reporter

WEIGHTS_FILE = "weights.safetensors"
TENSORS_FILE = "optimizer_and_methods.pt"
_FILES = (WEIGHTS_FILE, TENSORS_FILE)


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` optimizer steps.

    Attributes:
        weights: the trained weights by name.
        tensors: state dicts of the optimizer, and of the methods by kind.
        facts: counters and identities, JSON-able.
    """

    step: int
    weights: dict[str, torch.Tensor]
    tensors: dict[str, Any]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int, trusting: bool = False) -> Path:
    """Write ``checkpoints/step-…`` under the run folder and drop all but the newest ``keep``.

    Args:
        trusting: the run was started with ``--trust-remote-code``: for the command that resumes it.

    Raises:
        AlignzooError: it could not be written (disk full, ...); existing checkpoints are untouched.
    """
    target = folder / "checkpoints" / f"step-{checkpoint.step:08d}"
    try:
        target.parent.mkdir(exist_ok=True)
        with whole(target) as partial:
            partial.mkdir()
            save_file(checkpoint.weights, partial / WEIGHTS_FILE)
            torch.save(checkpoint.tensors, partial / TENSORS_FILE)
            files = {name: _identity(partial / name) for name in _FILES}
            state = sealed({"step": checkpoint.step, "files": files, **checkpoint.facts})
            (partial / STATE_FILE).write_text(json.dumps(state, indent=2), encoding="utf-8")
    except (OSError, RuntimeError, SafetensorError) as error:
        check_there(folder)
        last = [path for path in whole_checkpoints(folder) if step_of(path) <= checkpoint.step][-1:]
        raise AlignzooError(
            f"could not save the checkpoint of step {checkpoint.step} in {target.parent}: {error}",
            hint=f"{remedy(error)} and resume from {f'step {step_of(last[0])}' if last else 'the first step'} with: "
            + resume_words(folder, trusting=trusting),
        ) from error
    # Later ones are kept: a resume found them corrupt, and they must not count as the newest.
    done = [path for path in whole_checkpoints(folder) if step_of(path) <= checkpoint.step]
    for old in done[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _identity(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "digest": file_digest(path)}


def whole_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints whose files have the size that they were written with, oldest first; no content is checked."""
    return [path for path in checkpoints_of(folder) if _is_whole(path)]


def load_latest(folder: Path, report: Reporter, *, trusting: bool = False) -> Checkpoint | None:
    """The newest intact checkpoint of a run folder, None if it has none at all; warns about corrupt ones.

    Args:
        trusting: the run was started with ``--trust-remote-code``: for the command that resumes it.

    Raises:
        AlignzooError: all are damaged.
    """
    paths = checkpoints_of(folder)
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except DamagedError as error:
            report.warn(error.message + ("" if path == paths[0] else "; trying the previous checkpoint"))
    if paths:
        raise AlignzooError(
            f"no readable checkpoint in {folder / 'checkpoints'}",
            hint=f"delete that folder to start from the first step with: {resume_words(folder, trusting=trusting)}",
        )
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DamagedError: it is not what was saved.
    """
    facts = _checked_state(path)
    try:
        for name in _FILES:
            if facts["files"][name]["digest"] != file_digest(path / name):
                raise DamagedError(path, f"the content of {name} has changed since it was written")
        tensors = torch.load(path / TENSORS_FILE, map_location="cpu", weights_only=True)
        return Checkpoint(facts["step"], load_file(path / WEIGHTS_FILE), tensors, facts)
    except DamagedError:
        raise
    except Exception as error:  # torch and safetensors each have their own
        raise DamagedError(path, f"{type(error).__name__}: {error}") from error


def _checked_state(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint whose files have the right size and whose step is that of its folder.

    Raises:
        DamagedError: they have not.
    """
    try:
        facts = read_sealed(path / STATE_FILE)
    except DamagedError as error:
        raise DamagedError(path, f"{STATE_FILE}: {error.reason}") from error
    if facts.get("step") != step_of(path):
        raise DamagedError(path, f"it contains step {facts.get('step')}")
    for name in _FILES:
        file = path / name
        if not file.is_file():
            raise DamagedError(path, f"{name} is missing")
        size, written = file.stat().st_size, facts["files"][name]["size"]
        if size != written:
            raise DamagedError(path, f"{name} has {size} bytes, {written} were written")
    return facts


def _is_whole(path: Path) -> bool:
    try:
        _checked_state(path)
    except DamagedError:
        return False
    return True
