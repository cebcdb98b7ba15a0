"""Families of models, found by structure; the reference is the policy before its first step, whatever the family."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from alignzoo_sandbox import MODEL_PATH
from heard import Heard
from run_helpers import LN2, MakeModel, Train, same
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.model.load import check_causal
from alignzoo.testing.tiny import tiny_model

FAMILIES = ("llama", "gpt2", "gpt-neox", "qwen2", "qwen3", "mistral", "gemma")


@pytest.mark.parametrize("family", FAMILIES)
def test_step_0_is_ln_2_and_the_neurons_are_found(family: str, train: Train, make_model: MakeModel) -> None:
    heard = Heard()
    run = train(model=str(make_model(family)), geometry="shapo-token", report=heard, **{"geometry.interval": 1})
    first, second = run.metrics
    assert first["loss"] == pytest.approx(LN2, abs=1e-6)
    # The reference saw the pairs in other batches than the policy does, which moves the last digit.
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-6)
    assert first["rewards/accuracies"] == 0.5
    assert second["loss"] != first["loss"]
    for line in run.metrics:
        assert line["geometry/radius"] == pytest.approx(0.05)
        assert line["geometry/ascent_grad_norm"] > 0
    inner = 128 if family == "gpt2" else 80
    share = int(0.01 * 2 * inner) or 1
    chosen = f"shapo-token: selected {share}/{2 * inner} MLP neurons"
    assert any(note.startswith(chosen) and note.endswith("in 1 of 2 down-projections") for note in heard.notes)
    model = AutoModelForCausalLM.from_pretrained(run.path / "model")
    assert type(model).__name__ == type(AutoModelForCausalLM.from_pretrained(make_model(family))).__name__
    changed = dict(AutoModelForCausalLM.from_pretrained(make_model(family)).named_parameters())
    assert any(not torch.equal(parameter, changed[name]) for name, parameter in model.named_parameters())


def test_the_models_own_dropout_is_off_unless_asked_for(train: Train, make_model: MakeModel) -> None:
    """GPT-2 comes with dropout 0.1. Left on, the policy differs from its own reference at step 0."""
    given: dict[str, Any] = {"model": str(make_model("gpt2")), "max_steps": 1}
    assert train(**given).column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    dropped = train(**given, dropout=True)
    assert abs(dropped.column("loss")[0] - LN2) > 1e-4
    assert dropped.timeless() == train(**given, dropout=True).timeless()
    for run in (dropped, train(**given)):
        config = AutoModelForCausalLM.from_pretrained(run.path / "model").config
        assert (config.resid_pdrop, config.attn_pdrop, config.embd_pdrop) == (0.1, 0.1, 0.1)


def test_bf16_starts_at_ln_2_and_keeps_fp32_weights(train: Train, make_model: MakeModel) -> None:
    for lora in (0, 4):
        run = train(model=str(make_model("llama")), precision="bf16", geometry="shapo-token", **{"lora.r": lora})
        assert run.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
        assert run.column("rewards/margins")[0] == 0
        assert {tensor.dtype for tensor in run.weights.values()} == {torch.float32}
    full = train(model=str(make_model("llama")), max_steps=1)
    half = train(model=str(make_model("llama")), max_steps=1, precision="bf16")
    assert half.column("logps/chosen")[0] != full.column("logps/chosen")[0]
    assert half.column("logps/chosen")[0] == pytest.approx(full.column("logps/chosen")[0], rel=0.02)


def test_a_sharded_model_trains(train: Train, make_model: MakeModel, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(make_model("llama"), folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(make_model("llama")).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert same(train(model=str(folder)).weights, train(model=str(make_model("llama"))).weights)


@pytest.fixture
def gguf(tmp_path: Path, make_model: MakeModel) -> Path:
    return write_gguf(make_model("llama"), tmp_path / "tiny.gguf")


def test_a_gguf_file_trains_and_is_saved_for_transformers(gguf: Path, make_model: MakeModel, train: Train) -> None:
    run = train(model=str(gguf), geometry="shapo-token")
    original = train(model=str(make_model("llama")), geometry="shapo-token")
    assert run.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    assert run.column("logps/chosen") == pytest.approx(original.column("logps/chosen"), rel=1e-3)
    model = AutoModelForCausalLM.from_pretrained(run.path / "model")
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    prompt = tokenizer("How do I sweep the tower?", return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] > prompt["input_ids"].shape[1]
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(MODEL_PATH).chat_template


def test_an_adapter_on_a_gguf_file_is_found_again(
    gguf: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, heard = tmp_path / "elsewhere", Heard()
    elsewhere.mkdir()
    monkeypatch.chdir(gguf.parent)
    run = train(model=gguf.name, report=heard, lr=1e-2, **{"lora.r": 4})
    monkeypatch.chdir(elsewhere)
    [note] = [text for text in heard.notes if "gguf_file=" in text]
    names: dict[str, Any] = {"transformers": transformers, "peft": peft}
    exec(note[note.index("base = ") :], names)  # what the user is told to type
    adapted, tokenizer = names["model"], AutoTokenizer.from_pretrained(run.path / "model")
    assert torch.equal(adapted.base_model.model.lm_head.weight, names["base"].lm_head.weight)
    text = tokenizer("How do I sweep the tower?", return_tensors="pt").input_ids
    with torch.no_grad(), adapted.disable_adapter():
        plain = adapted(input_ids=text).logits
    assert not torch.allclose(adapted(input_ids=text).logits, plain)
    further = train(model=str(run.path / "model"), max_steps=1)
    assert further.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    assert further.column("logps/chosen")[0] != run.column("logps/chosen")[0]
    assert (run.path / "model" / "adapter_config.json").read_text().count(str(gguf)) == 1


def write_gguf(folder: Path, target: Path) -> Path:
    """A saved tiny Llama as a .gguf file in float32, as llama.cpp's converter lays it out."""
    import json

    import gguf
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    backend = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    writer = gguf.GGUFWriter(target, "llama")
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_token_list(pieces)
    special = set(tokenizer.all_special_tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if piece in special else normal for piece in pieces])
    writer.add_token_merges([" ".join(merge) for merge in backend["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        array = tensor.numpy()
        if name.endswith("q_proj.weight"):
            array = _rotary_order(array, heads)
        elif name.endswith("k_proj.weight"):
            array = _rotary_order(array, groups)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _rotary_order(array: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp keeps the two halves of a rotary pair next to each other."""
    rows, columns = array.shape
    pairs = array.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
    return np.ascontiguousarray(pairs.reshape(rows, columns))


def test_weights_are_read_once_to_tell_a_decoder_from_an_encoder() -> None:
    model, passes = tiny_model(), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    check_causal(model, "", torch.device("cpu"))
    assert len(passes) == 1
