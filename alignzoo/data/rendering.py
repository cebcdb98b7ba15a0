"""Renders a row to the texts to tokenise: with the chat template for messages, as plain text otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignzoo.data.rows import Drop, Message, PromptRow, Text, as_messages
from alignzoo.data.transcripts import write_transcript
from alignzoo.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLY = "\ue000reply\ue000"
"""Placeholder reply to find where a template writes it: private-use characters, which no template contains."""


def shared_length(*sequences: Sequence[Any]) -> int:
    """Number of leading items that all sequences share."""
    first, shortest = sequences[0], min(map(len, sequences))
    if all(other[:shortest] == first[:shortest] for other in sequences[1:]):
        return shortest
    return next(at for at in range(shortest) if any(other[at] != first[at] for other in sequences[1:]))


@dataclass(frozen=True)
class RenderedRow:
    """The texts of a row; each of ``wholes``, one per response, includes the prompt.

    ``prompt_restored``: the template writes the prompt differently before a reply; here it is the generation prompt.
    """

    prompt: str
    wholes: tuple[str, ...]
    prompt_restored: bool = False

    def pieces(self) -> tuple[str, ...]:
        """Prompt and responses, such that prompt + response is the tokenised text."""
        shared = shared_length(self.prompt, *self.wholes)
        return self.wholes[0][:shared], *(whole[shared:] for whole in self.wholes)


def render_prompt(prompt: Text, tokenizer: PreTrainedTokenizerBase, *, transcript: bool = False) -> str:
    """The text a model continues: the prompt and the header of the assistant's turn.

    Raises:
        ModelError: chat messages, but the tokenizer has no chat template, or one that fails.
    """
    if tokenizer.chat_template:
        return _apply_template(tokenizer, as_messages(prompt, "user"), add_generation_prompt=True)
    if isinstance(prompt, str):
        return prompt
    return write_transcript(_plain(prompt, transcript)) + "\n\nAssistant:"


def render_row(row: PromptRow, tokenizer: PreTrainedTokenizerBase, end_tokens: tuple[str, ...]) -> RenderedRow | Drop:
    """All texts of a row; a conversation that the chat template rejects is a ``Drop``.

    Args:
        end_tokens: texts of the tokens that can end a turn.
    """
    from jinja2 import TemplateError

    try:
        prompt = render_prompt(row.prompt, tokenizer, transcript=row.transcript)
        written = [render_whole(row, reply, tokenizer) for reply in row.responses]
        wholes = [
            _with_prompt(prompt, whole, row, reply, tokenizer)
            for whole, reply in zip(written, row.responses, strict=True)
        ]
    except TemplateError:
        # For instance consecutive turns of one speaker, which many templates reject.
        return Drop("refused-by-chat-template")
    if None in wholes:
        return Drop("prompt-rewritten-by-chat-template")
    ended = tuple(_end_turn(str(whole), end_tokens) for whole in wholes)
    return RenderedRow(prompt, ended, prompt_restored=wholes != written)


def _with_prompt(
    prompt: str, whole: str, row: PromptRow, reply: Text, tokenizer: PreTrainedTokenizerBase
) -> str | None:
    """``whole``, with its prompt replaced by ``prompt`` if the template writes a different one before a reply.

    Some templates put the system text, or tools, into the last turn. In generation a model continues the prompt alone,
    so training must use that prompt. None if the reply cannot be separated from the text before it.
    """
    if not tokenizer.chat_template or whole.startswith(prompt.rstrip()):
        return whole
    messages = as_messages(row.prompt, "user")
    # The end of the last turn: the rest of the prompt only introduces the reply.
    closed = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False).rstrip()
    shared, end = shared_length(prompt, whole), shared_length(prompt, closed)
    last = messages[-1]["content"].strip() if messages else ""
    start = prompt.rfind(last, 0, end) if last else -1
    if 0 <= start <= shared - len(last):
        return whole
    if start < 0:
        return whole if shared >= end else None
    turn = prompt[start:end]
    stand_in = [{**as_messages(reply, "assistant")[0], "content": _REPLY}]
    head = render_whole(row, stand_in, tokenizer).rpartition(_REPLY)[0]
    if not prompt.count(turn) == head.count(turn) > 0:
        return None
    at = head.rfind(turn)
    same = shared_length(prompt[start:], head[at:])
    return prompt[: start + same] + whole[at + same :] if whole.startswith(head[: at + same]) else None


def render_whole(row: PromptRow, reply: Text, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the row's prompt and a reply, with the template's text after the last turn.

    Raises:
        ModelError: chat messages, but the tokenizer has no chat template, or one that fails.
    """
    if tokenizer.chat_template:
        messages = as_messages(row.prompt, "user") + as_messages(reply, "assistant")
        return _apply_template(tokenizer, messages, add_generation_prompt=False)
    if isinstance(row.prompt, str) and isinstance(reply, str):
        return row.prompt + reply
    return write_transcript(_plain(as_messages(row.prompt, "user") + as_messages(reply, "assistant"), row.transcript))


def _apply_template(tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, add_generation_prompt: bool) -> str:
    """The messages rendered by the chat template.

    Raises:
        jinja2.TemplateError: the template rejects these messages.
        ModelError: the template itself fails.
    """
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except TemplateError:
        raise
    except Exception as error:  # a template's expressions can raise anything: a division by zero, an unbounded range
        raise ModelError(
            f"the tokenizer's chat template fails: {type(error).__name__}: {error}",
            hint="fix chat_template (chat_template.jinja or tokenizer_config.json), or use another model",
        ) from error


def _plain(messages: list[Message], transcript: bool) -> list[Message]:
    if not transcript:
        raise ModelError(
            "the data contains chat messages, but the tokenizer has no chat template",
            hint="use the tokenizer of an instruction-tuned model, set tokenizer.chat_template, or use plain-text "
            "prompts and responses",
        )
    return messages


def _end_turn(text: str, end_tokens: tuple[str, ...]) -> str:
    """``text`` up to its end-of-turn token: the template's text after it (a line feed) is never generated."""
    stripped = text.rstrip()
    return stripped if stripped.endswith(end_tokens) else text
