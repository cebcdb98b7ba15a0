"""Joint tokenisation: one prompt boundary for all responses, one BOS, one EOS, no silent truncation.

Prompt + response is tokenised as one text, and split where the ids of the prompt alone and of all whole texts diverge.
(Tokenising the parts separately, or slicing at the prompt's length, shifts the boundary for tokenizers that merge
across it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from alignzoo.data.rendering import RenderedRow, render_row, shared_length
from alignzoo.data.rows import Drop, PromptRow, Text, identical

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizedRow:
    """Token ids of a prompt and its responses; prompt + response is a whole sequence. ``*_text``: the tokenised text,
    split by characters.

    ``boundary_moved``: the prompt has fewer tokens than alone. ``truncated``: a response was cut and lost its EOS.
    ``prompt_restored``: see ``RenderedRow``.
    """

    prompt_ids: list[int]
    response_ids: list[list[int]]
    prompt_text: str
    response_text: list[str]
    boundary_moved: bool
    truncated: bool
    prompt_restored: bool


class RowTokenizer:
    """A tokenizer with the facts about its special tokens that tokenising rows needs, computed once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def added_bos(self) -> int | None:
        """The BOS id, if the tokenizer itself prepends one to plain text."""
        bos = self.tokenizer.bos_token_id
        return bos if bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos] else None

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of all special tokens: a reply with no other tokens is empty."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return frozenset(index for index, token in added.items() if token.special) | {*self.tokenizer.all_special_ids}

    @cached_property
    def end_tokens(self) -> dict[str, int]:
        """Text and id of the tokens that end a reply: EOS, and a chat template's substitutes for it.

        Many models list their end-of-turn token only among the added special tokens, so every special token without
        another role counts.
        """
        tokenizer = self.tokenizer
        ends = {tokenizer.eos_token_id} - {None}
        if tokenizer.chat_template:
            others = {tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id}
            ends |= self.special_ids - others
        return {tokenizer.convert_ids_to_tokens(index): index for index in ends}

    @cached_property
    def _plain_backend(self) -> Any:
        """The Rust tokenizer, if calling this tokenizer amounts to calling it; else None."""
        from transformers import PreTrainedTokenizerBase, TokenizersBackend

        kind = type(self.tokenizer)
        plain = (
            issubclass(kind, TokenizersBackend)
            and kind.__call__ is PreTrainedTokenizerBase.__call__
            and kind._encode_plus is TokenizersBackend._encode_plus
        )
        return self.tokenizer.backend_tokenizer if plain else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, with exactly one leading BOS if the tokenizer uses one."""
        # The call sets the backend's rules, no padding and no truncation; the objects it builds around the ids cost a
        # third as much as the ids.
        through = list(texts) if self._plain_backend is None else [""]
        ids = self.tokenizer(
            through,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        if self._plain_backend is not None:
            encoded = self._plain_backend.encode_batch_fast(list(texts), add_special_tokens=False)
            ids = [encoding.ids for encoding in encoded]
        return [self._one_bos(list(sequence)) for sequence in ids]

    def tokenize(self, rows: Sequence[PromptRow], max_length: int, max_prompt_length: int) -> list[TokenizedRow | Drop]:
        """Each row's tokens, or its drop reason; one tokenizer call for all rows.

        Args:
            max_length: tokens of prompt + response; longer responses are truncated.
            max_prompt_length: tokens of the prompt; rows with a longer one are dropped, never truncated.
        """
        within = [self._bounded(row, max_length, max_prompt_length) for row in rows]
        rendered = [
            row if isinstance(row, Drop) else render_row(row, self.tokenizer, tuple(self.end_tokens)) for row in within
        ]
        texts = [text for row in rendered if isinstance(row, RenderedRow) for text in (row.prompt, *row.wholes)]
        encoded = iter(self.encode(texts) if texts else [])
        outcomes: list[TokenizedRow | Drop] = []
        for row, bounded, text in zip(rows, within, rendered, strict=True):
            if isinstance(text, Drop):
                outcomes.append(text)
                continue
            alone, wholes = next(encoded), [next(encoded) for _ in text.wholes]
            outcome = self._cut(row, text, alone, wholes, max_length, max_prompt_length)
            if bounded is not row and isinstance(outcome, TokenizedRow) and not outcome.truncated:
                outcome = Drop("response-too-long")  # its end is missing, which the tokens do not show
            outcomes.append(outcome)
        return outcomes

    @cached_property
    def _longest_token(self) -> int:
        """Maximum characters per token."""
        return max(map(len, self.tokenizer.get_vocab()), default=1)

    def _bounded(self, row: PromptRow, max_length: int, max_prompt_length: int) -> PromptRow | Drop:
        """The row without text that is certainly beyond its last token: tokenising it would take gigabytes."""
        if _characters(row.prompt) > max_prompt_length * self._longest_token:
            return Drop("prompt-too-long")
        most = (max_length + 1) * self._longest_token
        if max(map(_characters, row.responses)) <= most:
            return row
        return replace(row, responses=tuple(_shortened(response, most) for response in row.responses))

    def _cut(
        self,
        row: PromptRow,
        text: RenderedRow,
        alone: list[int],
        wholes: list[list[int]],
        max_length: int,
        max_prompt_length: int,
    ) -> TokenizedRow | Drop:
        size = shared_length(alone, *wholes)
        prompt, room = alone[:size], max_length - size
        if not prompt:
            return Drop("empty-prompt")
        if size > max_prompt_length or room < 1:
            return Drop("prompt-too-long")
        responses = [self._one_end(whole[size:]) for whole in wholes]
        for rank, response in enumerate(responses):
            if not set(response) - self.special_ids:
                return Drop(f"empty-{row.name(rank)}")
        cut = [response[:room] for response in responses]
        if _repeated(cut):
            return Drop(identical(row.shape) if _repeated(responses) else "identical-after-truncation")
        prompt_text, *response_text = text.pieces()
        return TokenizedRow(
            prompt,
            cut,
            prompt_text,
            response_text,
            boundary_moved=size < len(alone),
            truncated=max(map(len, responses)) > room,
            prompt_restored=text.prompt_restored,
        )

    def _one_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        while bos is not None and ids[:2] == [bos, bos]:
            del ids[0]
        return ids if self.added_bos is None or ids[:1] == [bos] else [bos, *ids]

    def _one_end(self, reply: list[int]) -> list[int]:
        """The reply with one end token: the template's end of turn if it wrote one, else EOS."""
        while len(reply) > 1 and reply[-1] == reply[-2] and reply[-1] in self.end_tokens.values():
            reply = reply[:-1]
        eos = self.tokenizer.eos_token_id
        ended = bool(reply) and reply[-1] in self.end_tokens.values()
        return reply if ended or eos is None else [*reply, eos]


def _repeated(responses: Sequence[list[int]]) -> bool:
    return any(response in responses[:rank] for rank, response in enumerate(responses))


def _characters(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(len(message["content"]) for message in text)


def _shortened(text: Text, most: int) -> Text:
    if isinstance(text, str):
        return text[:most]
    return [{**message, "content": message["content"][:most]} for message in text]
