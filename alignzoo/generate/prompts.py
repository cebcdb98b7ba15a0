"""Messages to prompts: with the tokenizer's chat template; without one, as lm-eval sends them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignzoo.base.memo import Memo
from alignzoo.data.digests import tokenizer_digest
from alignzoo.data.rendering import render_prompt
from alignzoo.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "\ue000"
"""Text to try a template with: a private-use character, which no template treats specially."""
_BY_TEMPLATE = "the tokenizer's chat template"
_WITHOUT_TEMPLATE = (
    "no chat template: a single message is sent as its plain text, a conversation as a Human/Assistant transcript"
)


_MOST_KNOWN = 1 << 16
"""Prompts of one tokenizer whose ids are kept."""
_KNOWN = Memo(limit=2)


class Prompting:
    """Prompts of one tokenizer.

    Args:
        system: a system prompt, put before the messages (unless they begin with one of their own).

    Attributes:
        described: a sentence on how prompts are written.

    Raises:
        ModelError: the tokenizer's chat template fails.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._system = system or None
        self._folds = bool(tokenizer.chat_template) and not self._takes_system()
        self.described = self._described()
        self._known: dict[str, list[int]] = _KNOWN.get("ids", (tokenizer_digest(tokenizer), self._system), dict)

    def text(self, messages: Sequence[Any]) -> str:
        """The text that the model continues.

        Raises:
            DataError: no messages, or the chat template rejects them.
            ModelError: the chat template fails.
        """
        from jinja2 import TemplateError

        prompt = self._with_system(messages)
        if not prompt:
            raise DataError("a prompt needs at least one message", hint='[{"role": "user", "content": "…"}]')
        try:
            if self._tokenizer.chat_template:
                return render_prompt(prompt, self._tokenizer)
            return self._plain(prompt)
        except TemplateError as error:
            roles = ", ".join(str(message["role"]) for message in prompt)
            raise DataError(
                f"the tokenizer's chat template rejects messages with the roles {roles}: {error}",
                hint="most templates want user and assistant in turn, beginning and ending with user",
            ) from error

    def ids(self, messages: Sequence[Any]) -> list[int]:
        """The prompt's token ids: those of earlier evaluations of this process, where it asks the same again."""
        try:
            content = json.dumps([*messages], sort_keys=True)
        except (TypeError, ValueError):  # a template's matter, which the text is about
            return self.encode(self.text(messages))
        if content not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[content] = self.encode(self.text(messages))
        return [*self._known[content]]

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt's text, as lm-eval encodes it: no second BOS if the text already begins with one."""
        bos = getattr(self._tokenizer, "bos_token", None)
        special = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        return list(self._tokenizer(text, padding=False, truncation=False, verbose=False, **special)["input_ids"])

    def _with_system(self, messages: Sequence[Any]) -> list[Any]:
        prompt = [dict(message) for message in messages]
        if self._system is not None and (not prompt or prompt[0]["role"] != "system"):
            prompt = [{"role": "system", "content": self._system}, *prompt]
        if self._folds and len(prompt) > 1 and prompt[0]["role"] == "system":
            system, first, *rest = prompt
            prompt = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
        return prompt

    def _plain(self, prompt: list[Any]) -> str:
        """As lm-eval without ``--apply_chat_template``: one message is its own text."""
        if prompt[0]["role"] == "system":
            system, *prompt = prompt
            return f"{system['content']}\n\n{self._plain(prompt)}" if prompt else str(system["content"])
        if len(prompt) == 1:
            return str(prompt[0]["content"])
        return render_prompt(prompt, self._tokenizer, transcript=True)

    def _takes_system(self) -> bool:
        """Whether the template accepts a system message and writes its text."""
        from jinja2 import TemplateError

        try:
            messages: list[Any] = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "a"}]
            return _PROBE in render_prompt(messages, self._tokenizer)
        except TemplateError:
            return False

    def _described(self) -> str:
        if not self._tokenizer.chat_template:
            return _WITHOUT_TEMPLATE
        if self._system is not None and self._folds:
            return f"{_BY_TEMPLATE}, which has no system role: the system prompt begins the first user message"
        return _BY_TEMPLATE
