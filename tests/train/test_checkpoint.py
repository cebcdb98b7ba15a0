"""Checkpoints are whole or not there; weights have an identity."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard

from alignzoo.base.files import PARTIAL, clear_leftovers
from alignzoo.base.owner import Owner
from alignzoo.base.stored import file_digest, read_sealed, sealed
from alignzoo.errors import AlignzooError, MethodError
from alignzoo.model import weights
from alignzoo.model.weights import fingerprint
from alignzoo.step.states import plain_state
from alignzoo.testing.tiny import tiny_model
from alignzoo.train import checkpoint as checkpoints
from alignzoo.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_latest,
    save_checkpoint,
    step_of,
    whole_checkpoints,
)
from alignzoo.train.metrics import MetricsFile


def state(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((4,), float(step))}, {"optimizer": {"step": step}}, {"tokens": 10 * step})


def test_saved_and_read_back(tmp_path: Path) -> None:
    found = load_checkpoint(save_checkpoint(tmp_path, state(3), keep=2))
    assert (found.step, found.facts["tokens"], found.tensors["optimizer"]["step"]) == (3, 30, 3)
    assert torch.equal(found.weights["w"], torch.full((4,), 3.0))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 10, 4, 12):
        save_checkpoint(tmp_path, state(step), keep=2)
    assert [path.name for path in checkpoints.whole_checkpoints(tmp_path)] == ["step-00000010", "step-00000012"]


FILES = ["weights.safetensors", "optimizer_and_methods.pt", "state.json"]


def flipped(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda content: None,
    "cut": lambda content: content[:-7],
    "flipped": flipped,
    "zeros": lambda content: bytes(len(content)),
    "header": lambda content: b"\xff" + content[1:],
    "emptied": lambda content: b"",
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_is_taken(tmp_path: Path, file: str, damage: str) -> None:
    save_checkpoint(tmp_path, state(1), keep=5)
    bad = save_checkpoint(tmp_path, state(2), keep=5)
    content = DAMAGE[damage]((bad / file).read_bytes())
    (bad / file).unlink()
    if content is not None:
        (bad / file).write_bytes(content)
    heard = Heard()
    found = load_latest(tmp_path, heard)
    assert found is not None
    assert found.step == 1
    [warning] = heard.warnings
    assert str(bad) in warning
    assert file in warning


def test_a_checkpoint_of_another_step_or_run_is_not_taken_for_its_folders(tmp_path: Path) -> None:
    shutil.copytree(save_checkpoint(tmp_path, state(1), keep=5), tmp_path / "checkpoints" / "step-00000009")
    heard = Heard()
    found = load_latest(tmp_path, heard)
    assert found is not None
    assert found.step == 1
    assert "it contains step 1" in heard.warnings[0]


def test_where_all_are_damaged_it_says_how_to_start_over(tmp_path: Path) -> None:
    for step in (1, 2):
        (save_checkpoint(tmp_path, state(step), keep=5) / FILES[0]).write_bytes(b"")
    with pytest.raises(AlignzooError, match=r"no readable checkpoint in") as failure:
        load_latest(tmp_path, Heard())
    assert "delete that folder" in str(failure.value)
    assert load_latest(tmp_path / "elsewhere", Heard()) is None


def test_a_damaged_later_one_does_not_count_as_the_newest_and_is_written_again(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, state(step), keep=3)
    weights = tmp_path / "checkpoints" / "step-00000006" / FILES[0]
    weights.write_bytes(flipped(weights.read_bytes()))
    save_checkpoint(tmp_path, state(5), keep=2)
    assert [step_of(path) for path in checkpoints.whole_checkpoints(tmp_path)] == [4, 5, 6]
    save_checkpoint(tmp_path, state(6), keep=2)
    heard = Heard()
    found = load_latest(tmp_path, heard)
    assert found is not None
    assert (found.step, heard.warnings) == (6, [])


def test_what_a_killed_save_left_is_not_picked_and_goes_away(tmp_path: Path) -> None:
    killed = Owner(Owner.this().host, os.getpid(), "0-0")
    left = tmp_path / "checkpoints" / f"{PARTIAL}{killed.token}.x" / "step-00000005"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    assert whole_checkpoints(tmp_path) == []
    clear_leftovers(tmp_path)
    assert not left.parent.exists()


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which error a full disk gives is the system's; a real one is in the tests of whole runs."""
    good = save_checkpoint(tmp_path, state(1), keep=1)

    def full(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(AlignzooError, match="could not save the checkpoint of step 2") as failure:
        save_checkpoint(tmp_path, state(2), keep=1)
    assert f"free some space and resume from step 1 with: alignzoo run --resume {tmp_path}" in str(failure.value)
    assert whole_checkpoints(tmp_path)[-1] == good
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    import pickle

    path = save_checkpoint(tmp_path, state(1), keep=1)

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    evil = path / "optimizer_and_methods.pt"
    evil.write_bytes(pickle.dumps(Evil()))
    facts = read_sealed(path / "state.json")
    facts["files"][evil.name] = {"size": evil.stat().st_size, "digest": file_digest(evil)}
    (path / "state.json").write_text(json.dumps(sealed(facts)))
    with pytest.raises(AlignzooError, match="damaged"):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


STRANGE = {"set": frozenset({1}), "object": {"a": [1, object()]}, "complex": {"b": complex(1, 2)}}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE.keys())
def test_a_state_that_could_not_be_read_back_is_refused_when_it_is_saved(strange: Any) -> None:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            return {"fine": [1.0, "x", torch.ones(2)], "odd": strange}

    with pytest.raises(MethodError, match=r"Odd.state_dict\(\) contains a (frozenset|object|complex)"):
        plain_state(Odd())


def test_metrics_forget_the_steps_that_are_taken_again(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, Heard())
    for step in range(1, 6):
        metrics.append({"step": step})
    with metrics.path.open("a") as file:
        file.write('{"step": 6, "lo')
    heard = Heard()
    MetricsFile(tmp_path, heard, done=3).append({"step": 4})
    assert not heard.warnings
    assert [json.loads(line)["step"] for line in metrics.path.read_text().splitlines()] == [1, 2, 3, 4]


def test_fingerprints_tell_any_two_weights_apart() -> None:
    model = tiny_model(dtype=torch.float32)
    same, first = tiny_model(dtype=torch.float32), fingerprint(model)
    assert fingerprint(same) == first
    weight = model.model.layers[0].mlp.down_proj.weight.data
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(1.0))
    assert fingerprint(model) != first
    swapped = tiny_model(dtype=torch.float32)
    rows = swapped.model.layers[0].mlp.down_proj.weight.data
    rows[[0, 1]] = rows[[1, 0]]
    assert fingerprint(swapped) != first, "the same numbers in another order are other weights"


@pytest.mark.parametrize("words", [1, 7, 1 << 30])
def test_fingerprints_do_not_depend_on_how_many_words_are_summed_at_a_time(
    words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {
        name: torch.randn(5, 13).to(dtype) for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items()
    }
    expected = fingerprint(made)
    monkeypatch.setattr(weights, "_BLOCK", words)
    assert fingerprint(made) == expected


def test_fingerprints_do_not_depend_on_where_a_tensor_begins() -> None:
    row = torch.randn(9).bfloat16()
    assert fingerprint({"a": row[1:]}) == fingerprint({"a": row[1:].clone()})
