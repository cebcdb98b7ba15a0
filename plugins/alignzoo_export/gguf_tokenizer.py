"""The tokenizer of a GGUF file: byte-level BPE, with the splitting rules that llama.cpp knows by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Token types, as ``gguf.TokenType`` numbers them."""

# How published tokenizers split text before BPE, by llama.cpp's name for it (``llama-vocab.cpp``); the expressions are
# those of the models' own tokenizer.json.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}

PROBES = (
    "Hello world, it's 2024! How much is 12345 + 67.89?",
    "Ünïcödé — naïve café, 你好世界, привет, 🙂🙃",
    "def f(x):\n    return x  # two  spaces\n\n\n\tTabs and\r\nlines",
    " leading space and trailing ",
)
"""Texts that two tokenizers with the same vocabulary split differently if their rules differ."""


class UnsupportedTokenizer(Exception):
    """A tokenizer that this module cannot write to a GGUF file; the text says why."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as a GGUF file states it.

    Attributes:
        pre: llama.cpp's name of the rules that split text before BPE.
        tokens, types: one for each row of the embeddings.
        merges: ``left right`` each.
        special: ids by their name in ``tokenizer.ggml.NAME_token_id``.
    """

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]
    add_bos: bool
    chat_template: str | None


def read_vocabulary(tokenizer: Any, rows: int) -> Vocabulary:
    """The tokenizer as a GGUF file states it.

    Args:
        rows: of the model's embeddings; those without a token are padded with unused ones.

    Raises:
        UnsupportedTokenizer: it is no byte-level BPE, or splits text by unknown rules.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    pre = _pre_tokenizer(content)
    added = {token["id"]: token for token in content["added_tokens"]}
    by_id = {index: text for text, index in model["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    if max(by_id) >= rows:
        raise UnsupportedTokenizer(f"its tokenizer has ids up to {max(by_id)}, and the model {rows} embeddings")
    template = tokenizer.chat_template
    return Vocabulary(
        pre=pre,
        tokens=[by_id.get(index, f"[PAD{index}]") for index in range(rows)],
        types=[_type(index, by_id, added) for index in range(rows)],
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        special=_special(tokenizer),
        add_bos=_adds_bos(tokenizer),
        chat_template=template if isinstance(template, str) else None,
    )


def differing(tokenizer: Any, path: Path) -> str | None:
    """A text that transformers encodes differently with the tokenizer of a GGUF file; None if there is none."""
    from alignzoo.model.load import load_tokenizer
    from alignzoo.model.source import find_model
    from alignzoo.plan.settings import Settings

    again = load_tokenizer(find_model(str(path)), Settings())
    specials = "".join(token for token in tokenizer.all_special_tokens)
    texts = [*PROBES, f"{specials}text{specials}"]
    return next((text for text in texts if tokenizer(text)["input_ids"] != again(text)["input_ids"]), None)


def _pre_tokenizer(content: dict[str, Any]) -> str:
    model, normalizer = content["model"], content["normalizer"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise UnsupportedTokenizer(f"its tokenizer is {_described(model)}, not byte-level BPE")
    if normalizer is not None and normalizer["type"] != "NFC":
        raise UnsupportedTokenizer(f"its tokenizer normalises text ({normalizer['type']})")
    steps = content["pre_tokenizer"] or {"type": "none"}
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return "gpt-2"
        case [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        ]:
            return "smollm"
        case [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if regex in _SPLITS:
            return _SPLITS[regex]
    names = ", ".join(step["type"] for step in steps)
    raise UnsupportedTokenizer(f"its tokenizer splits text by rules that have no known name in llama.cpp ({names})")


def _described(model: dict[str, Any]) -> str:
    return "SentencePiece BPE" if model["type"] == "BPE" else str(model["type"])


def _type(index: int, by_id: dict[int, str], added: dict[int, dict[str, Any]]) -> int:
    if index not in by_id:
        return UNUSED
    if index not in added:
        return NORMAL
    return CONTROL if added[index]["special"] else USER_DEFINED


def _special(tokenizer: Any) -> dict[str, int]:
    named = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    return {name: index for name, index in named.items() if index is not None}


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
