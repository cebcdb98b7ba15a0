"""LoRA: a small adapter trains, the base stays, and peft loads what comes out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from run_helpers import LN2, Az, MakeModel, RunFolder, Train, same
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.errors import UsageError
from alignzoo.model.load import find_model, load_policy
from alignzoo.plugin.settings import Settings

ADAPTED = {"lora.r": 4, "geometry": "shapo-token", "geometry.interval": 1, "robust": ["drdpo"]}


@pytest.fixture
def base(make_model: MakeModel) -> Path:
    return make_model("llama")


@pytest.fixture
def adapter(train: Train, base: Path) -> RunFolder:
    return train(model=str(base), **ADAPTED, lr=1e-2, max_steps=3)


def _generates(model: PeftModel, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("How do I sweep the tower?", return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**prompt, max_new_tokens=4, do_sample=False).shape[1] > prompt["input_ids"].shape[1]


def test_an_adapter_trains_and_loads_on_its_base(adapter: RunFolder, base: Path) -> None:
    assert adapter.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    assert adapter.column("rewards/margins")[0] == 0
    assert adapter.column("loss")[-1] < 0.95 * LN2
    assert all(line["geometry/radius"] == pytest.approx(0.05) for line in adapter.metrics)
    files = {path.name for path in (adapter.path / "model").iterdir()}
    assert "model.safetensors" not in files
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= files
    assert all("lora_" in name and "reference" not in name for name in adapter.weights)
    assert all(tensor.abs().sum() > 0 for tensor in adapter.weights.values())
    plain = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter.path / "model")
    for name, tensor in plain.named_parameters():
        inside = adapted.base_model.model.get_parameter(name.replace("proj.weight", "proj.base_layer.weight"))
        assert torch.equal(tensor, inside)
    text = torch.tensor([[5, 6, 7, 8]])
    assert not torch.allclose(adapted(input_ids=text).logits, plain(input_ids=text).logits)
    _generates(AutoPeftModelForCausalLM.from_pretrained(adapter.path / "model"), adapter.path / "model")


def test_the_base_files_are_not_touched(train: Train, base: Path) -> None:
    before = (base / "model.safetensors").read_bytes()
    train(model=str(base), **ADAPTED, lr=1e-2)
    assert (base / "model.safetensors").read_bytes() == before


def test_checkpoints_hold_the_adapter_alone(adapter: RunFolder) -> None:
    held = load_file(adapter.path / "checkpoints" / "step-00000003" / "weights.safetensors")
    assert held
    assert all("lora_" in name for name in held)


def test_radius_0_is_plain_under_lora(train: Train, base: Path) -> None:
    plain = train(model=str(base), **{**ADAPTED, "geometry.rho": 0}, lr=1e-2)
    perturbed = train(model=str(base), **ADAPTED, lr=1e-2)
    bare = {name: value for name, value in ADAPTED.items() if "geometry" not in name}
    controller = train(model=str(base), **bare, lr=1e-2)
    assert all(torch.equal(plain.weights[name], controller.weights[name]) for name in plain.weights)
    assert any(not torch.equal(plain.weights[name], perturbed.weights[name]) for name in plain.weights)


def test_training_goes_on_from_an_adapter_with_itself_as_reference(adapter: RunFolder, train: Train) -> None:
    start = adapter.path / "model"
    further = train(model=str(start), **{**ADAPTED, "lora.r": 0}, lr=1e-2, max_steps=4, save_every=2)
    assert further.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    assert further.column("rewards/margins")[0] == 0
    assert further.column("loss")[-1] < LN2
    assert further.weights.keys() == adapter.weights.keys()
    assert all(not torch.equal(further.weights[name], adapter.weights[name]) for name in adapter.weights)
    _generates(AutoPeftModelForCausalLM.from_pretrained(further.path / "model"), further.path / "model")
    checkpoint = load_file(further.path / "checkpoints" / "step-00000004" / "weights.safetensors")
    assert not [name for name in checkpoint if "reference" in name]


def test_resuming_keeps_the_reference_that_training_started_from(adapter: RunFolder, train: Train, az: Az) -> None:
    words = {**ADAPTED, "lora.r": 0, "save-every": 2}
    whole = train(model=str(adapter.path / "model"), **words, lr=1e-2, max_steps=4)
    metrics, weights = whole.timeless(), whole.weights
    for name in ("checkpoints/step-00000004", "model"):
        shutil.rmtree(whole.path / name)
    (whole.path / "result.json").unlink()
    assert az("run", "--resume", str(whole.path)).returncode == 0
    assert whole.timeless() == metrics
    assert same(whole.weights, weights)


def test_another_rank_than_the_adapters_is_refused(adapter: RunFolder, train: Train) -> None:
    with pytest.raises(UsageError, match=r"--lora\.r 8 does not fit the adapter in .*, which has rank 4") as error:
        train(model=str(adapter.path / "model"), **{"lora.r": 8})
    assert "leave --lora.r out" in str(error.value.hint)


def test_only_the_adapter_is_trainable(base: Path, adapter: RunFolder) -> None:
    for settings in (Settings(model=str(base), lora_r=4), Settings(model=str(adapter.path / "model"))):
        policy = load_policy(find_model(settings.model), settings)
        trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
        assert trained
        assert all("lora_" in name and ".default." in name for name in trained)
