"""A damaged file is read as what it was, or refused by name: never trained on, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heard import Heard
from mutations import damaged

from alignzoo.contract.result import RunResult
from alignzoo.errors import AlignzooError
from alignzoo.geometry.projections import Projection
from alignzoo.geometry.subspace import SavedSelection, save_selection
from alignzoo.plan.planfile import plan_to_dict, read_plan, write_plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.probe.probe import Probe
from alignzoo.reference.shards import Values, read_shards, write_shard
from alignzoo.reward import keep as scores
from alignzoo.runs.outcome import read_before, write_evaluation
from alignzoo.train.checkpoint import Checkpoint, load_latest, save_checkpoint
from alignzoo.train.metrics import MetricsFile, metrics_digest

FIGURES = {"eval/loss": 0.6931, "eval/rewards/margins": -0.25, "sandbox/refusal": 1.0}
RESULT = RunResult(
    "runs/a", "--loss dpo", "finished", 20, 4096, 3.5, {"train": 64, "held_out": 8}, "a1b2c3", FIGURES, FIGURES
)


@dataclass
class Subject:
    """A file that alignzoo writes and reads.

    Attributes:
        files: what is damaged, one at a time.
        read: its content as something that compares equal only to itself.
        cost: how much longer than others it takes to read.
    """

    files: list[Path]
    read: Callable[[Heard], Any]
    cost: int = 1


def plain(value: Any) -> Any:
    """Tensors and arrays as lists, beside their type: what compares by ``==``."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def checkpoint(folder: Path) -> Subject:
    for step in (1, 2):
        weights, tensors = {"w": torch.arange(6.0) * step, "b": torch.ones(2, 2)}, {"optimizer": {"m": torch.ones(3)}}
        path = save_checkpoint(folder, Checkpoint(step, weights, tensors, {"tokens": 7}), keep=2)

    def read(heard: Heard) -> Any:
        found = load_latest(folder, heard)
        assert found is not None
        return plain([found.step, found.weights, found.tensors, found.facts])

    return Subject(sorted(path.iterdir()), read, cost=2)


def metrics(folder: Path) -> Subject:
    file = MetricsFile(folder, Heard())
    for step in range(1, 9):
        file.append({"step": step, "loss": 0.7 - 0.01 * step, "tokens": 100 * step})
    digest = metrics_digest(folder)

    def read(heard: Heard) -> Any:
        MetricsFile(folder, heard, done=8, digest=digest)
        return file.path.read_bytes()

    return Subject([file.path], read)


def evaluation(folder: Path) -> Subject:
    write_evaluation(folder, before=FIGURES)
    return Subject([folder / "evaluation.json"], lambda heard: read_before(folder))


def result(folder: Path) -> Subject:
    RunResult(**{**RESULT.to_dict(), "folder": str(folder)}).save()
    return Subject([folder / "result.json"], lambda heard: RunResult.load(folder))


def plan(folder: Path) -> Subject:
    words = {"model": "sandbox", "data": "sandbox", "geometry": "shapo-token", "robust": ["drdpo"]}
    write_plan(require(resolve([Layer("flag", words)])), folder)
    return Subject([folder / "plan.yaml"], lambda heard: plan_to_dict(read_plan(folder)), cost=5)


def selection(folder: Path) -> Subject:
    maps = [Projection(layer, f"model.layers.{layer}.mlp.down_proj", None, 48, 16) for layer in range(3)]
    save_selection(folder, maps, [torch.arange(layer, 40, 7) for layer in range(3)], {"select": "random"})

    def read(heard: Heard) -> Any:
        found = SavedSelection.read(folder)
        return plain([found.neurons, found.widths])

    return Subject([folder / "selection.safetensors"], read)


def probe(folder: Path) -> Subject:
    Probe(torch.randn(2, 16), torch.randn(2), {"labels": "chosen/rejected", "held_out_auc": 0.9, "seed": 3}).save(
        folder
    )

    def read(heard: Heard) -> Any:
        found = Probe.load(folder, hidden=16)
        return plain([found.weight, found.bias, found.facts])

    return Subject([folder / "probe.json", folder / "probe.safetensors"], read)


def reference(folder: Path) -> Subject:
    lengths = np.array([2, 3, 1], dtype=np.int64)
    keys, logps = np.arange(6, dtype=np.int64).reshape(3, 2), np.array([-1.5, -2.0, -0.5], dtype=np.float32)
    write_shard(folder, Values(keys, logps, lengths, np.linspace(-1, 0, 6, dtype=np.float32)))

    def read(heard: Heard) -> Any:
        shards = read_shards(folder, tokens=True, report=heard)
        return plain([(one.keys, one.logps, one.lengths, one.token_logps[:]) for one in shards])

    return Subject(list(folder.glob("*.safetensors")), read)


def reward_scores(folder: Path) -> Subject:
    scores.keep("key", torch.linspace(-1, 1, 9, dtype=torch.float64), Heard())
    [file] = folder.rglob("key.safetensors")

    def read(heard: Heard) -> Any:
        found = scores.kept("key", 9, heard)
        return None if found is None else plain([found])

    return Subject([file], read)


SUBJECTS = [checkpoint, metrics, evaluation, result, plan, selection, probe, reference, reward_scores]


def outcome(subject: Subject, right: Any) -> str:
    """How a damaged file was dealt with."""
    heard = Heard()
    try:
        found = subject.read(heard)
    except AlignzooError:
        return "refused"
    if heard.warnings:
        return "warned"
    assert found == right
    return "the same"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path))


@pytest.mark.parametrize("make", SUBJECTS)
@pytest.mark.parametrize("count", [100, pytest.param(4000, marks=pytest.mark.slow)])
def test_damage_is_noticed_or_does_no_harm(make: Callable[[Path], Subject], count: int, tmp_path: Path) -> None:
    subject = make(tmp_path)
    right = subject.read(Heard())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcomes = []
    for file in subject.files:
        for content in damaged(before[file], count // (len(subject.files) * subject.cost)):
            file.write_bytes(content)
            outcomes.append(outcome(subject, right))
            for path, whole in before.items():
                path.write_bytes(whole)
    assert len(outcomes) - outcomes.count("the same") > len(outcomes) / 2
