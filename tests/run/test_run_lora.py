"""LoRA: a small adapter trains, the base stays, and peft loads what comes out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from run_helpers import LN2, Az, MakeModel, RunFolder, Train, same
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.errors import ModelError, UsageError
from alignzoo.model.load import load_policy, load_tokenizer
from alignzoo.model.source import ModelSource, find_model
from alignzoo.plan.settings import Settings

ADAPTED = {"lora.r": 4, "geometry": "shapo-token", "geometry.interval": 1, "robust": ["drdpo"]}


@pytest.fixture
def base(make_model: MakeModel) -> Path:
    return make_model("llama")


@pytest.fixture
def adapter(train: Train, base: Path) -> RunFolder:
    return train(model=str(base), **ADAPTED, lr=1e-2, max_steps=3)


MakeAdapter = Callable[..., Path]


@pytest.fixture
def make_adapter(base: Path, tmp_path: Path) -> MakeAdapter:
    """Saves an adapter as peft alone does, of rank 4 and alpha 16, with B drawn, so that it matters."""

    def make(name: str = "adapter", **config: Any) -> Path:
        options = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(base)
        get_peft_model(model, LoraConfig(init_lora_weights=False, **{**options, **config})).save_pretrained(
            tmp_path / name
        )
        return tmp_path / name

    return make


def _generates(model: PeftModel, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("How do I sweep the tower?", return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**prompt, max_new_tokens=4, do_sample=False).shape[1] > prompt["input_ids"].shape[1]


def test_an_adapter_trains_and_loads_on_its_base(adapter: RunFolder, base: Path) -> None:
    assert adapter.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    # The reference saw the pairs in other batches than the policy does, which moves the last digit.
    assert adapter.column("rewards/margins")[0] == pytest.approx(0, abs=1e-6)
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


def test_an_adapter_on_a_relative_base_loads_from_anywhere(
    train: Train, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(base, tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path)
    run = train(model="models/base", **ADAPTED)
    monkeypatch.chdir("elsewhere")
    _generates(AutoPeftModelForCausalLM.from_pretrained(run.path / "model"), run.path / "model")
    further = train(model=str(run.path / "model"), max_steps=1)
    assert further.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    _generates(AutoPeftModelForCausalLM.from_pretrained(further.path / "model"), further.path / "model")


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
    with pytest.raises(UsageError, match=r"--lora\.r 8 does not match the adapter in .*, which has rank 4") as error:
        train(model=str(adapter.path / "model"), **{"lora.r": 8})
    assert "leave --lora.r out" in str(error.value.hint)


def test_only_the_adapter_is_trainable(base: Path, adapter: RunFolder) -> None:
    for settings in (Settings(model=str(base), lora_r=4), Settings(model=str(adapter.path / "model"))):
        policy = load_policy(find_model(settings.model), settings)
        trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
        assert trained
        assert all("lora_" in name and ".default." in name for name in trained)


def test_the_dropout_of_an_adapter_is_off_unless_asked_for(make_adapter: MakeAdapter, train: Train) -> None:
    start = make_adapter(lora_dropout=0.5)
    run = train(model=str(start), max_steps=1)
    assert run.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    assert abs(train(model=str(start), max_steps=1, dropout=True).column("loss")[0] - LN2) > 1e-4
    assert json.loads((run.path / "model" / "adapter_config.json").read_text())["lora_dropout"] == 0.5


def test_another_alpha_than_the_adapters_is_refused(make_adapter: MakeAdapter) -> None:
    adapter = str(make_adapter(lora_alpha=32))
    source = find_model(adapter)
    with pytest.raises(
        UsageError, match=r"--lora\.alpha 8 does not match the adapter in .*, which has alpha 32"
    ) as error:
        load_policy(source, Settings(model=adapter, lora_r=4, lora_alpha=8))
    assert "leave --lora.alpha out" in str(error.value.hint)
    for fits in (Settings(model=adapter, lora_r=4), Settings(model=adapter, lora_r=4, lora_alpha=32)):
        assert load_policy(source, fits).peft_config["default"].lora_alpha == 32


def _in_hub_cache(folder: Path, repository: str, cache: Path) -> None:
    """What the hub's client keeps of a repository that it has fetched."""
    kept = cache / f"models--{repository.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, kept / "snapshots" / ("0" * 40))


def test_a_hub_id_may_be_an_adapter(
    adapter: RunFolder, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_hub_cache(adapter.path / "model", "someone/adapter", tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    local = find_model(str(adapter.path / "model"))
    assert find_model("someone/adapter") == ModelSource(local.path, adapter="someone/adapter")
    from_hub = train(model="someone/adapter")
    assert from_hub.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    assert same(from_hub.weights, train(model=str(adapter.path / "model")).weights)
    assert all("lora_" in name for name in from_hub.weights)


def test_a_hub_id_of_a_full_model(base: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _in_hub_cache(base, "someone/model", tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_model("someone/model") == ModelSource("someone/model")
    assert same(train(model="someone/model").weights, train(model=str(base)).weights)
    assert find_model("someone/absent") == ModelSource("someone/absent")  # its load says what is wrong
    with pytest.raises(ModelError, match="cannot load the tokenizer of someone/absent"):
        load_tokenizer(find_model("someone/absent"), Settings())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "is not a JSON object"),
        ("\xff", "cannot be read"),
        ("{}", "names no base model"),
        ('{"base_model_name_or_path": 7}', "names no base model"),
    ],
)
def test_a_damaged_adapter_config_is_named(content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=says) as error:
        find_model(str(tmp_path))
    assert str(file) in error.value.message
    assert error.value.hint


def test_what_peft_cannot_read_is_a_model_error(make_adapter: MakeAdapter) -> None:
    adapter = make_adapter()
    file = adapter / "adapter_config.json"
    content = json.loads(file.read_text())
    for damage in ({"peft_type": "ABACUS"}, {"peft_type": []}, {"target_modules": "no_such_module"}):
        file.write_text(json.dumps({**content, **damage}))
        with pytest.raises(ModelError, match=f"cannot load the adapter of {adapter}"):
            load_policy(find_model(str(adapter)), Settings(model=str(adapter)))


def test_an_adapter_on_an_adapter_is_refused(make_adapter: MakeAdapter) -> None:
    for name in ("lower", "itself"):
        adapter = make_adapter("itself")
        file = adapter / "adapter_config.json"
        content = {**json.loads(file.read_text()), "base_model_name_or_path": str(make_adapter(name))}
        file.write_text(json.dumps(content))
        with pytest.raises(ModelError, match=f"the base model .*{name} is itself an adapter") as error:
            find_model(str(adapter))
        assert "merge" in str(error.value.hint)


def test_an_adapter_without_its_base_is_refused(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    file = make_adapter() / "adapter_config.json"
    gone = tmp_path / "gone"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(gone)}))
    with pytest.raises(ModelError, match=f"{file}: base model {gone}: no such folder"):
        find_model(str(file.parent))


def test_an_adapter_saved_as_bin_is_refused(make_adapter: MakeAdapter) -> None:
    adapter = make_adapter()
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"it has no adapter_model\.safetensors") as error:
        load_policy(find_model(str(adapter)), Settings(model=str(adapter)))
    assert "safetensors only" in str(error.value.hint)


def test_an_adapters_own_tokenizer_is_used(make_adapter: MakeAdapter, base: Path, train: Train) -> None:
    adapter = make_adapter()
    source = find_model(str(adapter))
    plain = AutoTokenizer.from_pretrained(base)
    assert load_tokenizer(source, Settings()).chat_template == plain.chat_template
    plain.chat_template = "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"
    plain.save_pretrained(adapter)
    assert load_tokenizer(source, Settings()).chat_template == plain.chat_template
    run = train(model=str(adapter), max_steps=1)
    assert AutoTokenizer.from_pretrained(run.path / "model").chat_template == plain.chat_template
