"""Runs of two ranks that share the weights, in two processes that stay: the steps, checkpoints and models of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import MakeModel, RunFolder, Train
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import alignzoo
from alignzoo.model.load import load_policy
from alignzoo.model.source import find_model
from alignzoo.model.weights import fingerprint
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter
from alignzoo.testing.ranks import on_two_ranks

SIZES: dict[str, Any] = {"max-steps": 4, "micro-batch-size": 2, "lr": 1e-3, "optimizer": "adamw", "save-every": 2}
FULL = {"loss": "dpo", "robust": "drdpo", "geometry": ["shapo-token", "ema"], "geometry.shapo-token.interval": 2}


class Notes(Reporter):
    """What a rank says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


@contextmanager
def launched_for_fsdp2(environment: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment, ALIGNZOO_FSDP="true")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_here(environment: dict[str, str], recipe: dict[str, Any] | str) -> tuple[list[str], str, dict[str, Any]]:
    """What a rank says of a run, or of a run's folder to resume; the error that ends it; and what it counted: batches
    of reference log-probs, and guide models that it loaded whole."""
    from alignzoo.reference.compute import Filling
    from alignzoo.runs.execute import resume
    from alignzoo.session import guides

    notes, counted = Notes(), {"batches": 0, "whole": 0}
    values, load = Filling._values, guides.load_policy

    def counting(self: Filling, *given: Any) -> Any:
        counted["batches"] += 1
        return values(self, *given)

    def loading(*given: Any) -> Any:
        counted["whole"] += 1
        return load(*given)

    Filling._values = counting  # type: ignore[method-assign]
    guides.load_policy = loading  # type: ignore[attr-defined]
    try:
        with launched_for_fsdp2(environment):
            if isinstance(recipe, str):
                resume(recipe, reporter=notes)
            else:
                alignzoo.run(recipe, report=notes)
    except alignzoo.errors.AlignzooError as error:
        return notes.said, str(error), counted
    finally:
        Filling._values = values  # type: ignore[method-assign]
        guides.load_policy = load  # type: ignore[attr-defined]
    return notes.said, "", counted


class Ranks:
    """Runs on the two ranks."""

    def __init__(self, environment: dict[str, str], words: dict[str, Any]) -> None:
        self.environment, self.words = environment, words
        self.said: list[list[str]] = []
        self.counted: list[dict[str, int]] = []

    def run(self, out: Path, **given: Any) -> RunFolder:
        recipe = {**self.words, **given, "out": str(out)}
        return self._do(
            {name: str(v) if isinstance(v, Path) else v for name, v in recipe.items() if v is not None}, out
        )

    def resume(self, folder: Path) -> RunFolder:
        return self._do(str(folder), folder)

    def _do(self, recipe: Any, out: Path) -> RunFolder:
        found = on_two_ranks(run_here, self.environment, recipe, modules=[__name__])
        self.said, errors, self.counted = ([each[i] for each in found] for i in range(3))
        assert errors == ["", ""]
        return RunFolder(out)


@pytest.fixture
def ranks(environment: dict[str, str], words: dict[str, Any]) -> Ranks:
    return Ranks(environment, words)


def _undo_to(folder: Path, step: int) -> None:
    """The run as if it had been interrupted after that step."""
    (folder / "result.json").unlink()
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)


def _equal(two: RunFolder, one: RunFolder, near: float = 1e-5) -> None:
    assert two.weights.keys() == one.weights.keys()
    for name, tensor in one.weights.items():
        assert torch.allclose(two.weights[name], tensor, rtol=near, atol=near), name
    for here, there in zip(two.timeless(), one.timeless(), strict=True):
        assert here == pytest.approx(there, rel=1e-4, abs=1e-4)
    assert two.result["after"] == pytest.approx(one.result["after"], rel=1e-4, abs=1e-4)


def test_a_run_goes_on_with_more_and_with_fewer_ranks(
    ranks: Ranks, train: Train, make_model: MakeModel, tmp_path: Path
) -> None:
    given = {**FULL, **SIZES, "model": str(make_model())}
    one = train(**given)
    two = ranks.run(tmp_path / "two", **given)
    assert not any("loaded whole" in line for line in ranks.said[0])
    assert [n["batches"] for n in ranks.counted] == [0, 0]  # the weights are the same, and so are the cached log-probs
    _equal(two, one)
    assert two.result["weights"] == fingerprint(load_policy(find_model(str(two.path / "model")), Settings()))
    checkpoint = two.path / "checkpoints" / "step-00000002"
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "optimizer_and_methods.pt",
        "shard-00001-model-00001-of-00001.safetensors",
        "shard-00002-model-00001-of-00001.safetensors",
        "state.json",
    ]
    assert (checkpoint / "optimizer_and_methods.pt").stat().st_size < 200_000  # no tensor of the model's size
    _undo_to(two.path, 2)
    from alignzoo.runs.execute import resume

    notes = Notes()
    resume(two.path, reporter=notes)  # on one process
    assert "resuming after step 2 of 4" in notes.said
    _equal(two, one)
    _undo_to(one.path, 2)
    before = one.weights
    ranks.resume(one.path)
    assert "resuming after step 2 of 4" in ranks.said[0]
    for name, tensor in before.items():
        assert torch.allclose(one.weights[name], tensor, rtol=1e-5, atol=1e-5), name


def test_a_damaged_shard_is_found_and_the_checkpoint_before_it_used(
    ranks: Ranks, make_model: MakeModel, tmp_path: Path
) -> None:
    given = {"loss": "simpo", "geometry": "looksam", "geometry.every": 2, "lora.r": 2}
    two = ranks.run(tmp_path / "two", **given, **SIZES, model=make_model())
    weights = two.weights
    (two.path / "result.json").unlink()
    last = two.path / "checkpoints" / "step-00000004" / "shard-00002-model-00001-of-00001.safetensors"
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    ranks.resume(two.path)
    for said in ranks.said:
        assert any("shard-00002" in line and "trying the previous checkpoint" in line for line in said)
        assert "resuming after step 2 of 4" in said
    assert all(torch.equal(two.weights[name], tensor) for name, tensor in weights.items())
    assert json.loads((two.path / "model" / "adapter_config.json").read_text())["r"] == 2


@pytest.mark.parametrize("more", [{"offload": "weights"}, {"activation-checkpointing": True, "reference-cache": False}])
def test_offloaded_and_recomputed_runs_are_the_same(
    more: dict[str, Any], ranks: Ranks, train: Train, make_model: MakeModel, tmp_path: Path
) -> None:
    given = {**SIZES, "loss": "dpo", "geometry": "sam", "geometry.rho": 0.05, "model": str(make_model("qwen3"))}
    # Not AdamW, which divides by |g| + 1e-8: all gradients agree to 7e-8, but where the head's is 1.3e-9, a difference
    # of 2e-10 moves a weight by 1.5e-5.
    given |= {"optimizer": "sgd", "lr": 0.1}
    one = train(**given)
    two = ranks.run(tmp_path / "two", **given, **more)
    _equal(two, one)
    _undo_to(two.path, 2)
    _equal(ranks.resume(two.path), one)


def test_both_ranks_fill_the_reference_cache(ranks: Ranks, make_model: MakeModel, tmp_path: Path) -> None:
    given = {"loss": "dpo", "max-steps": 2, "tokens-per-micro-batch": 256, "micro-batch-size": None}
    ranks.run(tmp_path / "two", **given, model=make_model("qwen2"))
    assert ranks.counted[0] == ranks.counted[1]
    assert ranks.counted[0]["batches"] > 1
    [said] = [line for line in ranks.said[0] if line.startswith("reference log-probs:")]
    assert " 0 from earlier runs" in said


def test_a_reward_makes_the_ranks_load_the_whole_model(ranks: Ranks, make_model: MakeModel, tmp_path: Path) -> None:
    given = {"loss": "dpo", "robust": "soft-label", "reward": "probe", "max-steps": 2}
    ranks.run(tmp_path / "two", **given, model=make_model())
    [said] = [line for line in ranks.said[0] if "loaded whole" in line]
    assert "reward 'probe' may run it on its own" in said


@pytest.mark.parametrize("more", [{}, {"offload": "weights"}], ids=["device", "offloaded"])
def test_guide_models_are_sharded(
    more: dict[str, Any],
    ranks: Ranks,
    train: Train,
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    given = {**SIZES, "model": str(make_model()), "optimizer": "sgd", "lr": 0.1}
    guides = {
        "guide": str(train(**given, loss="dpo").path / "model"),
        "contrast": str(train(**given, **{"loss": "dpo", "lora.r": 2}).path / "model"),
    }
    given |= {"loss": "dpo", "aggregation": "tis-dpo", **guides}
    two = ranks.run(tmp_path / "two", **given, **more)
    assert [n["whole"] for n in ranks.counted] == [1, 1]
    [said] = [line for line in ranks.said[0] if "loaded whole" in line]
    assert said.startswith(f"{guides['contrast']} is loaded whole on every rank")
    assert said.endswith("its adapter is merged into it")
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))  # not what the ranks have computed
    _equal(two, train(**given))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"lora.r": 4},
        {"geometry": "sam", "geometry.rho": 0.05, "activation-checkpointing": True},
        {"geometry": "shapo-token", "geometry.interval": 2, "reference-cache": False},
    ],
    ids=["full", "lora", "sam", "shapo"],
)
def test_bf16_ranks_take_the_steps_of_one_process(
    kind: dict[str, Any], ranks: Ranks, train: Train, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("qwen3")
    given = {**SIZES, **kind, "loss": "dpo", "model": str(model), "optimizer": "sgd", "lr": 0.1}
    exact = train(**given)
    one = train(**given, precision="bf16")
    offload = {"offload": "weights"} if "geometry" in kind else {}
    two = ranks.run(tmp_path / "two", **given, precision="bf16", **offload)
    assert not any("loaded whole" in line for line in ranks.said[0])
    chosen = [run.plan["settings"]["weights"]["value"] for run in (one, two)]
    assert chosen == ["bf16" if "lora.r" in kind else "fp32"] * 2
    start = {} if "lora.r" in kind else load_file(model / "model.safetensors")

    def apart(here: RunFolder, there: RunFolder) -> float:
        """How far two runs end from each other, of the way that one process in fp32 went from its first step on."""
        ways = {name: tensor - start.get(name, 0) for name, tensor in exact.weights.items()}
        gap = sum(float((here.weights[name] - there.weights[name]).square().sum()) for name in ways)
        return float((gap / sum(float(way.square().sum()) for way in ways.values())) ** 0.5)

    print("bf16, two ranks and one process:", apart(two, one), "bf16 and fp32:", apart(one, exact))
    assert 1e-4 < apart(one, exact) < 0.1
    assert apart(two, one) < 0.01 * apart(one, exact)
    assert two.column("loss") == pytest.approx(one.column("loss"), abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{}, {"lora.r": 4}], ids=["full", "lora"])
def test_a_sharded_run_is_exported(kind: dict[str, Any], ranks: Ranks, make_model: MakeModel, tmp_path: Path) -> None:
    from alignzoo_export.export import Choices, export

    from alignzoo.session.subject import subject_of

    two = ranks.run(tmp_path / "two", loss="simpo", model=make_model(), **kind)
    export(subject_of(str(two.path)), tmp_path / "plain", Choices(), Notes())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    policy: Any = load_policy(find_model(str(two.path / "model")), Settings())
    ids = torch.tensor([[5, 9, 31, 7]])
    with torch.no_grad():
        assert torch.allclose(plain(input_ids=ids).logits, policy(input_ids=ids).logits, atol=1e-5)
    assert not (tmp_path / "plain" / "adapter_config.json").exists()
