"""Chat templates, chat messages, rows and the paths of real files that several tests of the data room use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignzoo.data.rows import Drop, SourceRow, canonical
from alignzoo.data.tokens import RowTokenizer, TokenizedRow

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Writes its own BOS, ends assistant turns with EOS, and refuses two turns of one speaker in a row.
LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
# As Mistral-7B-Instruct-v0.3 does it: the system text goes into the turn of the user that comes last, if any.
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}"
    "{% for m in turns %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {% if loop.last and system is defined %}{{ system }}\n\n{% endif %}"
    "{{ m.content }}[/INST]{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
# Reasoning models remove what was thought in earlier turns, and open (R1) or may write (Qwen3) the next thought.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '</think>' in m.content and not loop.last %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)

REAL_HH = Path(__file__).parents[3] / "shared" / "data" / "hh-rlhf-harmless-base-test.jsonl.gz"
REAL_XSTEST = REAL_HH.with_name("xstest_prompts.csv")


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def explicit(count: int = 3) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {n}?", "chosen": f" It is {n}.", "rejected": f" No {n}."} for n in range(count)]


def tokenized(row: SourceRow, tokenizer: Any, max_length: int, max_prompt_length: int) -> TokenizedRow | Drop:
    return RowTokenizer(tokenizer).tokenize([canonical(row)], max_length, max_prompt_length)[0]
