"""GGUF files: transformers reads the same tokenizer and the same logits from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alignzoo_export.gguf_tokenizer import PROBES, UnsupportedTokenizer, read_vocabulary
from alignzoo_sandbox import MODEL_PATH
from export_helpers import Az, MakeModel, largest, logits
from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from alignzoo.model.load import load_policy, load_tokenizer
from alignzoo.model.source import find_model
from alignzoo.plan.settings import Settings


def _read(path: Path) -> Any:
    return load_policy(find_model(str(path)), Settings())


def test_the_run_s_model_as_alignzoo_loads_it(exported: Path) -> None:
    path = exported / "model.gguf"
    assert largest(logits(_read(path)), logits(AutoModelForCausalLM.from_pretrained(exported))) < 1e-4

    ours, original = load_tokenizer(find_model(str(path)), Settings()), AutoTokenizer.from_pretrained(MODEL_PATH)
    assert [ours(text)["input_ids"] for text in PROBES] == [original(text)["input_ids"] for text in PROBES]
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert ours.apply_chat_template(chat)["input_ids"] == original.apply_chat_template(chat)["input_ids"]
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (1, 2, 0)


# Half an ulp of 10 bits, of 7 bits, and half a step of 127 relative to the largest of 32 values, as it adds up here.
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        pytest.param("f16", 1e-2, marks=pytest.mark.slow),
        pytest.param("bf16", 1e-1, marks=pytest.mark.slow),
        ("q8_0", 2e-1),
    ],
)
def test_smaller_types(kind: str, tolerance: float, az: Az, tmp_path: Path) -> None:
    assert az("export", MODEL_PATH, "--out", tmp_path / "out", "--gguf", kind, "--no-card").returncode == 0
    reader = GGUFReader(tmp_path / "out" / "model.gguf")
    types = {tensor.name: tensor.tensor_type.name.lower() for tensor in reader.tensors}
    assert types["blk.0.ffn_up.weight"] == types["token_embd.weight"] == kind
    assert types["output_norm.weight"] == "f32"
    difference = largest(
        logits(_read(tmp_path / "out" / "model.gguf")), logits(AutoModelForCausalLM.from_pretrained(MODEL_PATH))
    )
    assert 1e-5 < difference < tolerance


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Llama", {"head_dim": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}),
        ("Mistral", {"sliding_window": None, "vocab_size": 830}),
        ("Qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5, "vocab_size": 830}),
    ],
)
def test_other_models_of_the_family(
    name: str, values: dict[str, Any], az: Az, make_model: MakeModel, tmp_path: Path
) -> None:
    folder = make_model(name, **values)
    ended = az("export", folder, "--out", tmp_path / "out", "--gguf", "f32")
    assert ended.returncode == 0, ended.stderr
    again = _read(tmp_path / "out" / "model.gguf")
    original = AutoModelForCausalLM.from_pretrained(folder)
    assert largest(logits(again), logits(original)) < 1e-4
    assert again.config.tie_word_embeddings == original.config.tie_word_embeddings
    assert again.config.max_position_embeddings == 128


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("GPTNeoX", {}, "GPTNeoXForCausalLM is not one of LlamaForCausalLM"),
        ("Llama", {"attention_bias": True}, "has biases"),
        ("Mistral", {"sliding_window": 16}, "sliding-window"),
        (
            "Llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rotary embeddings are scaled",
        ),
    ],
)
def test_other_models_are_left_to_llama_cpp(
    name: str, values: dict[str, Any], reason: str, az: Az, make_model: MakeModel, tmp_path: Path
) -> None:
    ended = az("export", make_model(name, **values), "--out", tmp_path / "out", "--gguf", "bf16")
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert (
        f"python convert_hf_to_gguf.py {tmp_path}/out --outfile {tmp_path}/out/model.gguf --outtype bf16"
        in ended.stderr
    )
    assert not (tmp_path / "out" / "model.gguf").exists()
    assert (tmp_path / "out" / "README.md").is_file()
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_rules_of_splitting_by_their_name() -> None:
    """The expressions are those that transformers' own reader uses for the names."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    backend = tokenizer.backend_tokenizer
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for name in ("llama-bpe", "qwen2"):
        split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        assert read_vocabulary(tokenizer, 800).pre == name
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    assert read_vocabulary(tokenizer, 800).pre == "smollm"
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UnsupportedTokenizer, match="no known name"):
        read_vocabulary(tokenizer, 800)
    backend.normalizer = normalizers.Lowercase()
    with pytest.raises(UnsupportedTokenizer, match="normalises"):
        read_vocabulary(tokenizer, 800)


def test_a_tokenizer_that_transformers_reads_differently_is_told(az: Az, make_model: MakeModel, tmp_path: Path) -> None:
    folder = make_model("Llama")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    trained.train_from_iterator(["12345 2024"] * 9, trainer)
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="<|end|>").save_pretrained(folder)
    ended = az("export", folder, "--out", tmp_path / "out", "--gguf")
    assert ended.returncode == 0
    assert "splits some text differently from model.gguf (smollm)" in ended.stderr


def test_rows_without_a_token_are_unused(make_model: MakeModel) -> None:
    vocabulary = read_vocabulary(AutoTokenizer.from_pretrained(MODEL_PATH), 802)
    assert vocabulary.tokens[-2:] == ["[PAD800]", "[PAD801]"]
    assert vocabulary.types[:7] == [3, 3, 3, 3, 3, 3, 1]
    assert vocabulary.types[-2:] == [5, 5]
    with pytest.raises(UnsupportedTokenizer, match="ids up to 799"):
        read_vocabulary(AutoTokenizer.from_pretrained(MODEL_PATH), 700)
