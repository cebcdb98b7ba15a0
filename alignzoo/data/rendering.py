"""From a pair to the text that is tokenised: through the chat template where there is one, as plain text otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignzoo.data.rows import Drop, Message, PreferenceRow, Text, as_messages
from alignzoo.data.transcripts import write_transcript
from alignzoo.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def shared_length(*sequences: Sequence[Any]) -> int:
    """How many leading items all sequences have in common."""
    first, shortest = sequences[0], min(map(len, sequences))
    if all(other[:shortest] == first[:shortest] for other in sequences[1:]):
        return shortest
    return next(at for at in range(shortest) if any(other[at] != first[at] for other in sequences[1:]))


@dataclass(frozen=True)
class RenderedPair:
    """Three texts; ``chosen`` and ``rejected`` each hold the prompt as well."""

    prompt: str
    chosen: str
    rejected: str

    def pieces(self) -> tuple[str, str, str]:
        """Prompt, chosen reply and rejected reply, so that prompt + reply is what was tokenised."""
        shared = shared_length(self.prompt, self.chosen, self.rejected)
        return self.chosen[:shared], self.chosen[shared:], self.rejected[shared:]


def render_prompt(prompt: Text, tokenizer: PreTrainedTokenizerBase, *, transcript: bool = False) -> str:
    """The text a model continues: the prompt, and the header of the assistant's turn.

    Raises:
        ModelError: chat messages, and the tokenizer has no chat template, or one that fails.
    """
    if tokenizer.chat_template:
        return _apply_template(tokenizer, as_messages(prompt, "user"), add_generation_prompt=True)
    if isinstance(prompt, str):
        return prompt
    return write_transcript(_plain(prompt, transcript)) + "\n\nAssistant:"


def render_pair(
    row: PreferenceRow, tokenizer: PreTrainedTokenizerBase, end_tokens: tuple[str, ...]
) -> RenderedPair | Drop:
    """All three texts of a pair; a conversation that the chat template refuses is a ``Drop``.

    Args:
        end_tokens: the texts of the tokens that can end a turn.
    """
    from jinja2 import TemplateError

    try:
        prompt = render_prompt(row.prompt, tokenizer, transcript=row.transcript)
        chosen, rejected = (render_whole(row, reply, tokenizer) for reply in (row.chosen, row.rejected))
    except TemplateError:
        # For instance two turns of one speaker in a row, which many templates refuse.
        return Drop("refused-by-chat-template")
    return RenderedPair(prompt, _end_turn(chosen, end_tokens), _end_turn(rejected, end_tokens))


def render_whole(row: PreferenceRow, reply: Text, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the row's prompt and a reply to it, with what the template writes after the last turn.

    Raises:
        ModelError: chat messages, and the tokenizer has no chat template, or one that fails.
    """
    if tokenizer.chat_template:
        messages = as_messages(row.prompt, "user") + as_messages(reply, "assistant")
        return _apply_template(tokenizer, messages, add_generation_prompt=False)
    if isinstance(row.prompt, str) and isinstance(reply, str):
        return row.prompt + reply
    return write_transcript(_plain(as_messages(row.prompt, "user") + as_messages(reply, "assistant"), row.transcript))


def _apply_template(tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, add_generation_prompt: bool) -> str:
    """The messages as the chat template writes them.

    Raises:
        jinja2.TemplateError: the template refuses these messages.
        ModelError: the template itself fails.
    """
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except TemplateError:
        raise
    except Exception as error:  # whatever a template's expressions raise: a division by zero, a range without bound
        raise ModelError(
            f"the tokenizer's chat template fails: {type(error).__name__}: {error}",
            hint="repair chat_template (chat_template.jinja or tokenizer_config.json), or name another model",
        ) from error


def _plain(messages: list[Message], transcript: bool) -> list[Message]:
    if not transcript:
        raise ModelError(
            "The data holds chat messages, but the tokenizer has no chat template",
            hint="Use the tokenizer of an instruction-tuned model, set tokenizer.chat_template, or give prompt, chosen "
            "and rejected as plain text",
        )
    return messages


def _end_turn(text: str, end_tokens: tuple[str, ...]) -> str:
    """``text`` up to its end-of-turn token: what a template writes after it (a line feed) is never generated."""
    stripped = text.rstrip()
    return stripped if stripped.endswith(end_tokens) else text
