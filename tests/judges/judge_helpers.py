"""Tiny judge models whose replies are known: they look at the last character of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from alignzoo import load_method
from alignzoo.contract.judge import Answered, Judge, JudgeContext, Verdict
from alignzoo.report import Reporter

END = "<end>"
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ '' if loop.last else '\n' }}{% endfor %}"


def save_judge_model(folder: Path, replies: Mapping[str, str], template: str | None = TEMPLATE) -> Path:
    """A llama without attention that replies to a prompt by its last character, with a token that is the whole reply,
    and ends; to other characters it replies with the reply under ``""``.

    Args:
        template: the tokenizer's chat template.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=END)
    tokenizer.add_tokens(list(dict.fromkeys(replies.values())))
    tokenizer.chat_template = template
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        seen = torch.nn.functional.normalize(torch.randn(len(tokenizer), 64), dim=1)
        seen[:, 0] = 0
        model.model.embed_tokens.weight.copy_(seen)
        model.model.embed_tokens.weight[:, 0] = 0.5  # what all tokens share
        head = torch.zeros(len(tokenizer), 64)
        for character, reply in replies.items():
            row = head[tokenizer.convert_tokens_to_ids(reply)]
            if character:
                row += 3 * seen[tokenizer(character)["input_ids"][0]]
            else:
                row[0] += 1
            head[tokenizer.eos_token_id] += 6 * seen[tokenizer.convert_tokens_to_ids(reply)]
        model.lm_head.weight.copy_(head)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def answered(*responses: str, **more: str) -> list[Answered]:
    """Responses to one request."""
    return [Answered(str(i), "Open it?", (), text, **more) for i, text in enumerate(responses)]


def ready(name: str, *, report: Reporter | None = None, batch_size: int | None = None, **options: object) -> Judge:
    """A judge with these options, set up."""
    judge: Judge = load_method("judge", name, **options)
    judge.setup(JudgeContext(torch.device("cpu"), report or Reporter(), batch_size))
    return judge


def verdicts(name: str, answers: list[Answered], **options: object) -> list[Verdict]:
    """A judge's verdicts."""
    return list(ready(name, **options).verdicts(answers))
