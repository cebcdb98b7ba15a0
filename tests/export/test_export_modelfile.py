"""Modelfiles: a chat template that is a plain sequence of messages, in Ollama's language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alignzoo_export.modelfile import Turns, find_turns, modelfile
from alignzoo_sandbox import MODEL_PATH
from transformers import AutoTokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe good.<|im_end|>\\n' }}{% endif %}"


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_PATH)


def test_the_run_s_modelfile(exported: Path) -> None:
    """As a person would write it by hand from the template of the sandbox's model."""
    assert (exported / "Modelfile").read_text() == (
        "FROM ./model.gguf\n"
        'TEMPLATE """{{ if .System }}{{ "<|bos|><|system|>" }}{{ .System }}{{ "<|end|>" }}{{ else }}{{ "<|bos|>" }}'
        '{{ end }}{{ range .Messages }}{{ if eq .Role "user" }}{{ "<|user|>" }}{{ .Content }}{{ "<|end|>" }}'
        '{{ else if eq .Role "assistant" }}{{ "<|assistant|>" }}{{ .Content }}{{ "<|end|>" }}{{ end }}{{ end }}'
        '{{ "<|assistant|>" }}"""\n'
        'PARAMETER stop "<|end|>"\n'
    )


@pytest.mark.parametrize(
    ("start", "no_system"), [("", ""), (DEFAULT_SYSTEM, "<|im_start|>system\nBe good.<|im_end|>\n")]
)
def test_chatml_with_and_without_a_default_system_message(start: str, no_system: str, tokenizer: Any) -> None:
    tokenizer.chat_template = start + CHATML
    assert find_turns(tokenizer) == Turns(
        system=("<|im_start|>system\n", "<|im_end|>\n"),
        no_system=no_system,
        user=("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
        response="<|im_start|>assistant\n",
    )


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}: {{ m['content'] }}\n{% endfor %}",  # numbered
        "{% for m in messages %}[{{ m['content'] | upper }}]{% endfor %}",  # changes the content
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0]['content'] }}",
        None,
    ],
)
def test_other_templates_are_left_out(template: str | None, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    text, stated = modelfile(tokenizer, ["<|end|>", 'a "quoted" one'])
    assert not stated
    assert text == 'FROM ./model.gguf\nPARAMETER stop "<|end|>"\nPARAMETER stop "a \\"quoted\\" one"\n'
