"""An Ollama Modelfile for an exported GGUF file.

Ollama does not run the Jinja template inside a GGUF file: it knows some published ones by their text. So the template
is stated in Ollama's own language (Go's) where it is a plain sequence of messages, which is found out by rendering
conversations and comparing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo_export.gguf_file import FILE

Messages = Sequence[tuple[str, str]]
"""``(role, content)`` each."""

_CHECKED: tuple[Messages, ...] = (
    (("user", "Say A."),),
    (("system", "Be brief."), ("user", "Say A.")),
    (("user", "Say A."), ("assistant", "A, of course."), ("user", "And B?")),
    (("system", "Be kind."), ("user", "One?"), ("assistant", "Two."), ("user", "Three?")),
)
"""Conversations that a template has to render as the tokenizer does, each with a response to come."""


@dataclass(frozen=True)
class Turns:
    """A chat template as text around the contents: before and after each role's, where there is no system message, and
    before a response."""

    system: tuple[str, str]
    no_system: str
    user: tuple[str, str]
    assistant: tuple[str, str]
    response: str

    def render(self, messages: Messages) -> str:
        """A conversation with a response to come."""
        parts = [] if any(role == "system" for role, _ in messages) else [self.no_system]
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        parts += [f"{around[role][0]}{content}{around[role][1]}" for role, content in messages]
        return "".join([*parts, self.response])

    def template(self) -> str:
        """In Ollama's language."""

        def around(texts: tuple[str, str], content: str) -> str:
            return f"{_literal(texts[0])}{{{{ {content} }}}}{_literal(texts[1])}"

        return (
            f"{{{{ if .System }}}}{around(self.system, '.System')}{{{{ else }}}}{_literal(self.no_system)}{{{{ end }}}}"
            "{{ range .Messages }}"
            f'{{{{ if eq .Role "user" }}}}{around(self.user, ".Content")}'
            f'{{{{ else if eq .Role "assistant" }}}}{around(self.assistant, ".Content")}{{{{ end }}}}'
            "{{ end }}"
            f"{_literal(self.response)}"
        )


def modelfile(tokenizer: Any, stops: Sequence[str]) -> tuple[str, bool]:
    """The Modelfile, and whether it states the chat template.

    Args:
        stops: texts at which a response ends.
    """
    turns = find_turns(tokenizer)
    lines = [f"FROM ./{FILE}"]
    if turns is not None:
        lines.append(f'TEMPLATE """{turns.template()}"""')
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    return "\n".join(lines) + "\n", turns is not None


def find_turns(tokenizer: Any) -> Turns | None:
    """The tokenizer's chat template as text around the contents; None if it has none or does more than that."""
    if not isinstance(tokenizer.chat_template, str):
        return None
    try:
        turns = _guess(tokenizer)
        same = all(turns.render(messages) == _rendered(tokenizer, messages) for messages in _CHECKED)
    except Exception:  # whatever a template raises, of jinja2 or its own: it does not take these conversations
        return None
    return turns if same else None


def _guess(tokenizer: Any) -> Turns:
    """What the template would be if it were a plain sequence of messages.

    Raises:
        ValueError: a content does not appear as it is.
    """
    one, two, three, four = "CONTENT-1", "CONTENT-2", "CONTENT-3", "CONTENT-4"
    chat = (("user", one), ("assistant", two), ("user", three), ("assistant", four))
    before, after_user, after_assistant, _, end = _split(_rendered(tokenizer, chat, False), one, two, three, four)
    user_end = _split(_rendered(tokenizer, chat[:3], False), one, two, three)[-1]
    user = after_assistant.removeprefix(end)
    with_system = (("system", one), ("user", two))
    system_start, system_end, _ = _split(_rendered(tokenizer, with_system, False), one, two)
    response = _rendered(tokenizer, with_system).removeprefix(_rendered(tokenizer, with_system, False))
    return Turns(
        system=(system_start, system_end.removesuffix(user)),
        no_system=before.removesuffix(user),
        user=(user, user_end),
        assistant=(after_user.removeprefix(user_end), end),
        response=response,
    )


def _split(text: str, *contents: str) -> list[str]:
    parts = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found:
            raise ValueError(content)
        parts.append(before)
    return [*parts, text]


def _rendered(tokenizer: Any, messages: Messages, response: bool = True) -> str:
    conversation = [{"role": role, "content": content} for role, content in messages]
    return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=response))


def _literal(text: str) -> str:
    """Text inside a template: a string of Go, whose escapes are JSON's, so that no braces or spaces count."""
    return f"{{{{ {json.dumps(text)} }}}}" if text else ""
