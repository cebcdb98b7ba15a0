"""Runs that are held to the null space of general data: alone, stacked, stopped and resumed, under an adapter."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard
from held import holding, until_step
from run_helpers import Az, MakeModel, RunFolder, Start, Train, same
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.errors import DataError, IncompatibleError
from alignzoo.geometry.projections import find_projections

TEXTS = ("The miller sweeps the tower.", "Two lamps and a kettle.")


@pytest.fixture(autouse=True)
def base(words: dict[str, Any], make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model that every run here starts from."""
    folder = make_model()
    monkeypatch.setitem(words, "model", str(folder))
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """General data of fewer tokens than the MLPs have inputs."""
    file = tmp_path / "general.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    return file


def _drift(run: RunFolder, base: Path) -> float:
    """The largest |(W − W_ref) h| over the general data and the MLP maps, relative to |(W − W_ref)|·|h|."""
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    projections = find_projections(model, "mlp")
    seen: dict[str, list[Tensor]] = {}
    for projection in projections:
        keep = seen.setdefault(projection.name, []).append
        projection.module.register_forward_pre_hook(lambda module, given, keep=keep: keep(given[0][0].detach()))
    with torch.no_grad():
        for text in TEXTS:
            model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False))
    found = []
    for projection in projections:
        update = run.weights[f"{projection.name}.weight"].double() - projection.weight.detach().double()
        inputs = torch.cat(seen[projection.name]).double()
        assert update.norm() > 0
        found.append(float((inputs @ update.T).norm() / (inputs.norm() * update.norm())))
    return max(found)


def test_the_saved_model_does_the_same_on_general_data(train: Train, texts: Path, base: Path) -> None:
    heard = Heard()
    held = train(geometry="nspo", **{"geometry.data": str(texts)}, max_steps=4, report=heard)
    assert all(0 < kept < 1 for kept in held.column("geometry/nspo_kept"))
    assert _drift(held, base) < 1e-5
    assert _drift(train(max_steps=4), base) > 1e-2
    assert any(note.startswith("nspo: ") and "directions free in 6 maps" in note for note in heard.notes)
    assert any("only 2 of the 1024 requested texts" in note for note in heard.notes)


@pytest.mark.parametrize("order", [["sam", "nspo", "ema"], ["ema", "nspo", "shapo-token"]], ids="-".join)
def test_stacked_in_any_order_the_average_is_held_too(order: list[str], train: Train, texts: Path, base: Path) -> None:
    words = {"geometry.nspo.data": str(texts), "geometry.ema.decay": 0.5}
    run = train(geometry=order, **words, max_steps=4)
    assert _drift(run, base) < 1e-5
    assert {"geometry/nspo_kept", "geometry/ema_distance"} <= run.metrics[-1].keys()
    assert run.result["after"]["eval/loss"] < run.result["before"]["eval/loss"]


@pytest.mark.slow
def test_killed_and_resumed_it_ends_the_same(
    command: Callable[..., list[str]],
    az: Az,
    start: Start,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = {"geometry": "nspo", "geometry.data": str(texts), "max-steps": 24, "save-every": 2, "robust": "drdpo"}
    assert az(*command(tmp_path / "whole", **long)).returncode == 0
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    words = holding(tmp_path)
    monkeypatch.setenv("HOLD_AT", "5")
    process = start(*command(killed.path, *words, **long))
    until_step(killed.path, 5, process)
    process.kill()
    _, stderr = process.communicate()
    assert process.returncode == -signal.SIGKILL, stderr
    monkeypatch.delenv("HOLD_AT")
    ended = az("run", "--resume", str(killed.path), *words[:2])
    assert ended.returncode == 0, ended.stderr
    assert "resuming after step" in ended.stderr
    assert killed.timeless() == whole.timeless()
    assert same(killed.weights, whole.weights)
    assert killed.result["weights"] == whole.result["weights"]


def test_a_resume_with_other_general_data_is_refused(train: Train, texts: Path, az: Az) -> None:
    run = train(geometry="nspo", **{"geometry.data": str(texts)})
    shutil.rmtree(run.path / "model")
    (run.path / "result.json").unlink()
    texts.write_text("Something else.", encoding="utf-8")
    ended = az("run", "--resume", str(run.path))
    assert ended.returncode == 1
    assert "the general data of nspo has changed since this run started" in ended.stderr


def test_the_training_texts_stand_in_for_general_data(train: Train) -> None:
    heard = Heard()
    run = train(geometry="nspo", **{"geometry.samples": 1, "geometry.projections": "down_proj"}, report=heard)
    assert all(0 < kept < 1 for kept in run.column("geometry/nspo_kept"))
    assert any("general data (--geometry.nspo.data) works better" in note for note in heard.notes)


def test_a_new_adapter_is_held_and_a_trained_one_refused(train: Train, texts: Path, base: Path) -> None:
    words = {"geometry": "nspo", "geometry.data": str(texts)}
    adapted = train(**words, **{"lora.r": 4}, lr=1e-2, max_steps=4)
    start = train(**{**words, "lora.r": 4}, lr=1e-12, max_steps=1, warmup_steps=0)
    mlp = [name for name in adapted.weights if "mlp" in name and "lora_B" in name]
    assert len(mlp) == 6
    assert all(adapted.weights[name].abs().max() > 1e-3 for name in mlp)
    assert all(start.weights[name].abs().max() < 1e-9 for name in mlp)
    assert all(0 < kept < 1 for kept in adapted.column("geometry/nspo_kept"))
    with pytest.raises(IncompatibleError, match="a previously trained adapter"):
        train(model=str(adapted.path / "model"), **words)


def test_general_data_that_is_not_there(train: Train, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        train(geometry="nspo", **{"geometry.data": str(tmp_path / "none.jsonl")})
    (tmp_path / "wrong.jsonl").write_text('{"text": "fine"}\n{"story": "x"}\n')
    with pytest.raises(DataError, match=r"wrong\.jsonl:2: field 'text' is missing"):
        train(geometry="nspo", **{"geometry.data": str(tmp_path / "wrong.jsonl")})


def test_checkpoints_hold_no_directions(train: Train, texts: Path) -> None:
    run = train(geometry="nspo", **{"geometry.data": str(texts)})
    checkpoint = run.path / "checkpoints" / "step-00000002"
    assert load_file(checkpoint / "weights.safetensors").keys() <= run.weights.keys()
    saved = torch.load(checkpoint / "optimizer_and_methods.pt", weights_only=True)["geometry"]
    assert saved["companions"] == [{"texts": saved["companions"][0]["texts"]}]
    assert isinstance(saved["companions"][0]["texts"], str)
