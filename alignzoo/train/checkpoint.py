"""Atomic checkpoints: written to a temporary folder, flushed, then renamed; every byte is checked on reading.

One process writes the whole state. Ranks that share the weights (FSDP2) each write their rows, see
:mod:`alignzoo.train.shards`, and either reads what the other has written.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from alignzoo.base.checkpoints import STATE_FILE, checkpoints_of, step_of
from alignzoo.base.disk import check_there, remedy
from alignzoo.base.files import whole
from alignzoo.base.stored import file_digest, read_sealed, sealed
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import AlignzooError, DamagedError
from alignzoo.plugin.registry import resume_words
from alignzoo.report import Reporter
from alignzoo.train.shards import files_of_rank, read_shards, set_apart, write_shards

if TYPE_CHECKING:
    from accelerate import Accelerator

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
        unread: the folder that holds the content of the tensors on the meta device, if there are such.
    """

    step: int
    weights: dict[str, torch.Tensor]
    tensors: dict[str, Any]
    facts: dict[str, Any]
    unread: Path | None = None

    def filled(self, mesh: Any) -> Checkpoint:
        """The checkpoint with the content of all tensors, sharded over the ranks of ``mesh``, or whole without one."""
        if self.unread is None:
            return self
        weights = read_shards(self.unread, self.weights, mesh)
        return replace(self, weights=weights, tensors=read_shards(self.unread, self.tensors, mesh), unread=None)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int, trusting: bool = False) -> Path:
    """Write ``checkpoints/step-…`` under the run folder and drop all but the newest ``keep``.

    Args:
        trusting: the run was started with ``--trust-remote-code``: for the command that resumes it.

    Raises:
        AlignzooError: it could not be written (disk full, ...); existing checkpoints are untouched.
    """
    target = _target(folder, checkpoint.step)
    with _explained(folder, checkpoint.step, trusting):
        target.parent.mkdir(exist_ok=True)
        with whole(target) as partial:
            partial.mkdir()
            save_file(checkpoint.weights, partial / WEIGHTS_FILE)
            torch.save(checkpoint.tensors, partial / TENSORS_FILE)
            _seal(partial, checkpoint, {name: _identity(partial / name) for name in _FILES})
    _drop_old(folder, checkpoint.step, keep)
    return target


def save_sharded_checkpoint(
    folder: Path, checkpoint: Checkpoint, accelerator: Accelerator, *, keep: int, trusting: bool = False
) -> Path:
    """The same by ranks that share the tensors of the checkpoint, each of which writes and digests its own files.

    Raises:
        AlignzooError: a rank could not write; on all ranks.
    """
    main, rank = accelerator.is_main_process, accelerator.process_index
    target = _target(folder, checkpoint.step)
    weights, of_weights = set_apart(checkpoint.weights)
    tensors, of_methods = set_apart(checkpoint.tensors)

    def together(work: Any) -> list[Any]:
        def explained() -> Any:
            with _explained(folder, checkpoint.step, trusting):
                return work()

        return on_all_ranks(accelerator, explained)

    def begin(stack: ExitStack) -> Path | None:
        if not main:
            return None
        target.parent.mkdir(exist_ok=True)
        begun = stack.enter_context(whole(target))
        begun.mkdir()
        torch.save({"weights": weights, "tensors": tensors}, begun / TENSORS_FILE)
        return begun

    with ExitStack() as stack:
        folder_of_ranks: Path = together(partial(begin, stack))[0]
        together(partial(_check_shared, folder_of_ranks))
        together(partial(write_shards, folder_of_ranks, of_weights | of_methods))
        mine = [*files_of_rank(folder_of_ranks, rank), *([folder_of_ranks / TENSORS_FILE] if main else [])]
        identities = together(lambda: {path.name: _identity(path) for path in mine})
        files = {name: identity for found in identities for name, identity in found.items()}
        together(lambda: _seal(folder_of_ranks, checkpoint, files) if main else None)
        together(stack.close)
    together(lambda: _drop_old(folder, checkpoint.step, keep) if main else None)
    return target


def _target(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}"


@contextlib.contextmanager
def _explained(folder: Path, step: int, trusting: bool) -> Iterator[None]:
    """Failures to write the checkpoint of a step, in the user's terms."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, AlignzooError) as error:
        check_there(folder)
        last = [path for path in whole_checkpoints(folder) if step_of(path) <= step][-1:]
        raise AlignzooError(
            f"could not save the checkpoint of step {step} in {folder / 'checkpoints'}: {error}",
            hint=f"{remedy(error)} and resume from {f'step {step_of(last[0])}' if last else 'the first step'} with: "
            + resume_words(folder, trusting=trusting),
        ) from error


def _check_shared(folder: Path) -> None:
    """Refuse a folder that only one machine sees."""
    if not folder.is_dir():
        raise AlignzooError(f"{folder.parent} is not there on every machine; use an --out that all of them share")


def _seal(folder: Path, checkpoint: Checkpoint, files: dict[str, Any]) -> None:
    state = sealed({"step": checkpoint.step, "files": files, **checkpoint.facts})
    (folder / STATE_FILE).write_text(json.dumps(state, indent=2), encoding="utf-8")


def _drop_old(folder: Path, step: int, keep: int) -> None:
    # Later ones are kept: a resume found them corrupt, and they must not count as the newest.
    done = [path for path in whole_checkpoints(folder) if step_of(path) <= step]
    for old in done[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _identity(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "digest": file_digest(path)}


def whole_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints whose files have the size that they were written with, oldest first; no content is checked."""
    return [path for path in checkpoints_of(folder) if _is_whole(path)]


def load_latest(
    folder: Path, report: Reporter, *, trusting: bool = False, sharing: Accelerator | None = None
) -> Checkpoint | None:
    """The newest intact checkpoint of a run folder, None if it has none at all; warns about corrupt ones.

    Args:
        sharing: of ranks that share the weights: each checks some of the files, and no tensor is read yet.
        trusting: the run was started with ``--trust-remote-code``: for the command that resumes it.

    Raises:
        AlignzooError: all are damaged.
    """
    paths = checkpoints_of(folder)
    for path in reversed(paths):
        try:
            return load_checkpoint(path) if sharing is None else _shared_checkpoint(path, sharing)
        except DamagedError as error:
            report.warn(error.message + ("" if path == paths[0] else "; trying the previous checkpoint"))
    if paths:
        raise AlignzooError(
            f"no readable checkpoint in {folder / 'checkpoints'}",
            hint=f"delete that folder to start from the first step with: {resume_words(folder, trusting=trusting)}",
        )
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, with whole tensors.

    Raises:
        DamagedError: it is not what was saved.
    """
    facts = _checked_state(path)
    with _damaged(path):
        _check_content(path, facts, facts["files"])
        return _begun(path, facts).filled(None)


def _shared_checkpoint(path: Path, accelerator: Accelerator) -> Checkpoint:
    """A checkpoint whose tensors are not read yet, checked by all ranks together.

    Raises:
        DamagedError: it is not what was saved; on all ranks.
    """

    def check() -> dict[str, Any]:
        facts = _checked_state(path)
        with _damaged(path):
            mine = sorted(facts["files"])[accelerator.process_index :: accelerator.num_processes]
            _check_content(path, facts, mine)
        return facts

    facts = on_all_ranks(accelerator, check)[0]
    with _damaged(path):
        return _begun(path, facts, at_once=False)


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except DamagedError:
        raise
    except Exception as error:  # torch and safetensors each have their own
        raise DamagedError(path, f"{type(error).__name__}: {error}") from error


def _check_content(path: Path, facts: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if facts["files"][name]["digest"] != file_digest(path / name):
            raise DamagedError(path, f"the content of {name} has changed since it was written")


def _begun(path: Path, facts: dict[str, Any], *, at_once: bool = True) -> Checkpoint:
    """A checkpoint of which only what is small is read, or, ``at_once``, all that is not set apart."""
    # Mapped, what is large in it does not count as this process's memory.
    tensors = torch.load(path / TENSORS_FILE, map_location="cpu", weights_only=True, mmap=not at_once)
    if WEIGHTS_FILE not in facts["files"]:
        return Checkpoint(facts["step"], tensors["weights"], tensors["tensors"], facts, unread=path)
    if at_once:
        return Checkpoint(facts["step"], load_file(path / WEIGHTS_FILE), tensors, facts)
    with safe_open(path / WEIGHTS_FILE, "pt") as file:
        weights = {name: _empty_like(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
    return Checkpoint(facts["step"], weights, tensors, facts, unread=path)


def _empty_like(stored: Any) -> torch.Tensor:
    dtype: torch.dtype = stored[:0].dtype if stored.get_shape() else stored[()].dtype
    return torch.empty(stored.get_shape(), dtype=dtype, device="meta")


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
    for name, identity in facts["files"].items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise DamagedError(path, f"{name} is missing")
        size, written = file.stat().st_size, identity["size"]
        if size != written:
            raise DamagedError(path, f"{name} has {size} bytes, {written} were written")
    return facts


def _is_whole(path: Path) -> bool:
    try:
        _checked_state(path)
    except DamagedError:
        return False
    return True
