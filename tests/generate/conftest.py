"""Models and prompts of the generation tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_decoders import EOS, PAD, TURN, build
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def llama() -> Any:
    return build("llama")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """One of single bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    assert tokenizer.convert_tokens_to_ids(["<eos>", "<pad>", "<turn>"]) == [EOS, PAD, TURN]
    return tokenizer


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Ten prompts of 3 to 19 tokens, some of one length."""
    draw = torch.Generator().manual_seed(1)
    sizes = [3, 19, 7, 7, 12, 5, 19, 9, 3, 14]
    return [torch.randint(0, 256, (size,), generator=draw).tolist() for size in sizes]
