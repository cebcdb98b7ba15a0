"""Tiny real tokenizers and files; every cache of ``datasets`` goes to the test's own folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_examples import CHATML, LLAMA
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_CORPUS = [
    "Human: How do I bake a loaf of bread?\n\nAssistant: Mix flour, water, salt and yeast, then wait.",
    "What is the capital of France? It is Paris, of course. I cannot help with that request.",
    "user assistant [INST] [/INST] yes no maybe the answer is two hundred",
] * 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    cache = tmp_path / "datasets-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", cache / "downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", cache / "downloads" / "extracted")
    return cache


def _bpe(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


@pytest.fixture
def chatml() -> PreTrainedTokenizerFast:
    """ChatML: no BOS, turns end with <|im_end|> and a line feed, EOS is another token that doubles as padding."""
    backend = _bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture
def llama() -> PreTrainedTokenizerFast:
    """Llama-like: adds BOS by itself and writes it in the template as well."""
    backend = _bpe(["<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = LLAMA
    return tokenizer


@pytest.fixture
def gpt2() -> PreTrainedTokenizerFast:
    """GPT-2-like: no chat template, BOS, EOS and padding are one token, none of it added by itself."""
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=_bpe([end]), bos_token=end, eos_token=end, pad_token=end)


@pytest.fixture
def metaspace() -> PreTrainedTokenizerFast:
    """SentencePiece-like: a space is part of the word after it, so 'Q: ' alone ends in a token that 'Q: yes' lacks."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *"Q:yesnoaxb", "ye", "yes", "▁yes", "no", "▁no"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("y", "e"), ("ye", "s"), ("▁", "yes"), ("n", "o"), ("▁", "no")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., str]:
    """Writes rows (or raw lines) to a .jsonl file and returns its path."""

    def write(rows: list[dict[str, Any] | str], name: str = "pairs.jsonl") -> str:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    return write
