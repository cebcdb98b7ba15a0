"""Merged weights: plain transformers loads them, and they predict what the adapter on its base did."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_export import gguf_file, weights
from alignzoo_sandbox import MODEL_PATH
from export_helpers import Az, MakeModel, largest, logits
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.base.stored import read_sealed
from alignzoo.model.load import load_policy
from alignzoo.model.source import find_model
from alignzoo.plan.settings import Settings


def _answer(model: Any, tokenizer: Any) -> str:
    chat = [{"role": "user", "content": "Tell me how to pick a lock."}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    return str(tokenizer.decode(model.generate(**ids, do_sample=False, max_new_tokens=12)[0]))


def test_the_merged_model_is_the_adapter_on_its_base(run_folder: Path, exported: Path) -> None:
    adapted = AutoPeftModelForCausalLM.from_pretrained(run_folder / "model")
    alone = AutoModelForCausalLM.from_pretrained(exported)
    base = AutoModelForCausalLM.from_pretrained(MODEL_PATH)

    assert largest(logits(alone), logits(adapted)) < 1e-5 * logits(adapted).abs().max()
    assert largest(logits(alone), logits(base)) > 1e-2
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert _answer(alone, tokenizer) == _answer(adapted, AutoTokenizer.from_pretrained(run_folder / "model"))


def test_the_folder_is_complete_and_has_no_trace_of_the_adapter(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["tie_word_embeddings"]
    assert "quantization_config" not in config
    assert "lm_head.weight" not in load_file(exported / "model.safetensors")
    assert json.loads((exported / "generation_config.json").read_text())["max_new_tokens"] == 56
    assert (exported / "chat_template.jinja").read_text() == (MODEL_PATH / "chat_template.jinja").read_text()
    names = {path.name for path in exported.iterdir()}
    assert {"README.md", "Modelfile", "model.gguf", "export.json", "tokenizer.json"} <= names
    assert not any("adapter" in name or name.startswith(".") for name in names)


def test_dtype_and_size_of_the_files(az: Az, run_folder: Path, exported: Path, tmp_path: Path) -> None:
    ended = az("export", run_folder, "--out", tmp_path / "half", "--dtype", "bf16", "--max-shard-size", "1MB", "--json")
    found = json.loads(ended.stdout)
    assert (found["dtype"], found["merged"], found["parameters"]) == ("bfloat16", True, 955_520)
    assert sum(file["name"].endswith(".safetensors") for file in found["files"]) == 2
    halved = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert halved.dtype == torch.bfloat16
    whole = load_file(exported / "model.safetensors")
    assert all(
        torch.equal(tensor, whole[name].bfloat16()) for name, tensor in halved.state_dict().items() if name in whole
    )
    assert {file["name"]: file["bytes"] for file in found["files"]} == {
        path.name: path.stat().st_size for path in (tmp_path / "half").iterdir()
    }


def test_an_adapter_alone(az: Az, run_folder: Path, tmp_path: Path) -> None:
    az("export", run_folder, "--out", tmp_path / "adapter", "--no-merge")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert "adapter_model.safetensors" in names
    assert "model.safetensors" not in names
    ours = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(ours), logits(AutoPeftModelForCausalLM.from_pretrained(run_folder / "model")))
    assert "library_name: peft" in (tmp_path / "adapter" / "README.md").read_text()


def test_an_adapter_on_a_gguf_base(az: Az, exported: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shutil.copy(exported / "model.gguf", tmp_path / "base.gguf")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(exported),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False),
    )
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base.gguf")
    model.save_pretrained(tmp_path / "adapter")

    assert az("export", tmp_path / "adapter", "--out", tmp_path / "out").returncode == 0
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert largest(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model)) < 1e-4


def test_an_adapter_trained_on_rounded_weights_is_merged_into_those_on_disk(az: Az, tmp_path: Path) -> None:
    """``--weights bf16`` rounds the base in memory; the sandbox's is stored in fp32, off the bf16 grid."""
    words = Settings(model="sandbox", lora_r=4, precision="bf16", weights="bf16")
    policy = load_policy(find_model("sandbox"), words)
    draw = torch.Generator().manual_seed(0)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(generator=draw)
    policy.save_pretrained(tmp_path / "adapter")
    assert az("export", tmp_path / "adapter", "--out", tmp_path / "out").returncode == 0

    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    adapters, changed = load_file(tmp_path / "adapter" / "adapter_model.safetensors"), 0
    for name, stored in AutoModelForCausalLM.from_pretrained(MODEL_PATH).state_dict().items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        expected = stored
        if f"{key}.lora_B.weight" in adapters:
            scale = words.lora_alpha / words.lora_r
            expected = stored + scale * adapters[f"{key}.lora_B.weight"] @ adapters[f"{key}.lora_A.weight"]
            changed += 1
        assert torch.allclose(found[name], expected, rtol=1e-6, atol=1e-6), name
    assert changed
    embeddings = found["model.embed_tokens.weight"]
    assert not torch.equal(embeddings, embeddings.bfloat16().float())


def test_an_adapter_that_cannot_be_merged_is_refused(az: Az, tmp_path: Path) -> None:
    """Both the embeddings and the head have an adapter of their own, and share one matrix."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=2, target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM", init_lora_weights=False, lora_alpha=64
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(MODEL_PATH), config).save_pretrained(tmp_path / "adapter")
    ended = az("export", tmp_path / "adapter", "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "merging the adapter would change the model's logits" in ended.stderr
    assert "--no-merge" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_the_folder_is_only_replaced_if_it_is_an_export(az: Az, make_model: MakeModel, tmp_path: Path) -> None:
    model, out = make_model("Qwen2"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    ended = az("export", model, "--out", out)
    assert (ended.returncode, "is not empty" in ended.stderr) == (2, True)
    ended = az("export", model, "--out", out, "--overwrite")
    assert (ended.returncode, "is no export" in ended.stderr) == (2, True)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]

    assert az("export", model, "--out", tmp_path / "new", "--no-card").returncode == 0
    ended = az("export", model, "--out", tmp_path / "new")
    assert (ended.returncode, "add --overwrite" in ended.stderr) == (2, True)
    assert az("export", model, "--out", tmp_path / "new", "--overwrite", "--dtype", "fp16").returncode == 0
    assert read_sealed(tmp_path / "new" / "export.json")["dtype"] == "float16"
    assert (tmp_path / "new" / "README.md").is_file()


def test_nothing_is_written_where_it_does_not_fit(
    az: Az, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: usage(9, 0, 3_000_000))
    ended = az("export", run_folder, "--out", tmp_path / "out", "--debug")
    assert ended.returncode == 1
    assert "needs 0.00 GB" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ollama"], "add --gguf"),
        (["--gguf", "--no-merge"], "--gguf needs the merged model"),
        (["--no-merge", "--dtype", "bf16"], "--dtype has no effect"),
        (["--private"], "add --push OWNER/NAME"),
        (["--push", "a/b/c"], "not the name of a repository"),
        (["--max-shard-size", "huge"], "--max-shard-size huge"),
    ],
)
def test_words_that_do_not_go_together(
    words: list[str], message: str, az: Az, run_folder: Path, tmp_path: Path
) -> None:
    ended = az("export", run_folder, "--out", tmp_path / "out", *words)
    assert (ended.returncode, message in ended.stderr) == (2, True), ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_gguf_package_is_asked_for(
    az: Az, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None)
    ended = az("export", run_folder, "--out", tmp_path / "out", "--gguf")
    assert (ended.returncode, "pip install 'alignzoo[gguf]'" in ended.stderr) == (2, True)
