"""Joint tokenisation of pairs: one rule for both sides of where the prompt ends, one BOS, one EOS, no silent cut.

Prompt + reply is tokenised as one text, and cut where the ids of the prompt alone and of both whole texts stop agreeing
(Tokenising the parts separately, or slicing at the prompt's length, shifts the boundary for tokenizers that merge
across it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from alignzoo.data.rendering import RenderedPair, render_pair, render_prompt, shared_length
from alignzoo.data.rows import Drop, PreferenceRow, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizedPair:
    """Token ids of one pair; prompt + reply is the whole sequence. ``*_text``: what was tokenised, cut by characters.

    ``boundary_moved``: the prompt has fewer tokens than it has alone. ``truncated``: a reply was cut, its EOS lost.
    ``prompt_restored``: see ``RenderedPair``.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    prompt_text: str
    chosen_text: str
    rejected_text: str
    boundary_moved: bool
    truncated: bool
    prompt_restored: bool


class PairTokenizer:
    """A tokenizer with the facts about its special tokens that tokenising pairs needs, looked up once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def added_bos(self) -> int | None:
        """The BOS id, if the tokenizer puts one in front of plain text by itself."""
        bos = self.tokenizer.bos_token_id
        return bos if bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos] else None

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of all special tokens: a reply of nothing else is empty."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return frozenset(index for index, token in added.items() if token.special) | {*self.tokenizer.all_special_ids}

    @cached_property
    def end_tokens(self) -> dict[str, int]:
        """Text and id of the tokens that end a reply: EOS, and what a chat template may write in its place.

        The end-of-turn token of many models is only among the added special tokens, so every special token counts that
        has no other role.
        """
        tokenizer = self.tokenizer
        ends = {tokenizer.eos_token_id} - {None}
        if tokenizer.chat_template:
            others = {tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id}
            ends |= self.special_ids - others
        return {tokenizer.convert_ids_to_tokens(index): index for index in ends}

    @cached_property
    def _plain_backend(self) -> Any:
        """The Rust tokenizer, if calling it is all that calling this tokenizer comes to; else None."""
        from transformers import PreTrainedTokenizerBase, TokenizersBackend

        kind = type(self.tokenizer)
        plain = (
            issubclass(kind, TokenizersBackend)
            and kind.__call__ is PreTrainedTokenizerBase.__call__
            and kind._encode_plus is TokenizersBackend._encode_plus
        )
        return self.tokenizer.backend_tokenizer if plain else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, each with exactly one BOS in front if the tokenizer uses one."""
        # The call sets the backend's rules, no padding and no truncation; what it builds around the ids costs as much
        # as a third of them.
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

    def encode_prompt(self, prompt: Text, *, transcript: bool = False) -> list[int]:
        """Ids to generate from: the same text and the same BOS rule as in training."""
        return self.encode([render_prompt(prompt, self.tokenizer, transcript=transcript)])[0]

    def tokenize(
        self, rows: Sequence[PreferenceRow], max_length: int, max_prompt_length: int
    ) -> list[TokenizedPair | Drop]:
        """Each row's tokens, or why it has to be dropped; one call of the tokenizer for all rows.

        Args:
            max_length: tokens of prompt + reply; longer replies are cut.
            max_prompt_length: tokens of the prompt; pairs with a longer one are dropped, never cut.
        """
        within = [self._bounded(row, max_length, max_prompt_length) for row in rows]
        rendered = [
            row if isinstance(row, Drop) else render_pair(row, self.tokenizer, tuple(self.end_tokens)) for row in within
        ]
        usable = [pair for pair in rendered if isinstance(pair, RenderedPair)]
        texts = [text for pair in usable for text in (pair.prompt, pair.chosen, pair.rejected)]
        encoded = iter(self.encode(texts) if texts else [])
        pairs: list[TokenizedPair | Drop] = []
        for row, bounded, pair in zip(rows, within, rendered, strict=True):
            if isinstance(pair, Drop):
                pairs.append(pair)
                continue
            ids = (next(encoded), next(encoded), next(encoded))
            outcome = self._cut(pair, ids, max_length, max_prompt_length)
            if bounded is not row and isinstance(outcome, TokenizedPair) and not outcome.truncated:
                outcome = Drop("response-too-long")  # its end is missing, and the tokens do not show it
            pairs.append(outcome)
        return pairs

    @cached_property
    def _longest_token(self) -> int:
        """Characters that one token stands for at most."""
        return max(map(len, self.tokenizer.get_vocab()), default=1)

    def _bounded(self, row: PreferenceRow, max_length: int, max_prompt_length: int) -> PreferenceRow | Drop:
        """The row without text that lies beyond its last token for sure: tokenising it would take gigabytes."""
        if _characters(row.prompt) > max_prompt_length * self._longest_token:
            return Drop("prompt-too-long")
        most = (max_length + 1) * self._longest_token
        if max(_characters(row.chosen), _characters(row.rejected)) <= most:
            return row
        return replace(row, chosen=_shortened(row.chosen, most), rejected=_shortened(row.rejected, most))

    def _cut(
        self, pair: RenderedPair, ids: tuple[list[int], list[int], list[int]], max_length: int, max_prompt_length: int
    ) -> TokenizedPair | Drop:
        alone, chosen, rejected = ids
        size = shared_length(alone, chosen, rejected)
        prompt, room = alone[:size], max_length - size
        if not prompt:
            return Drop("empty-prompt")
        if size > max_prompt_length or room < 1:
            return Drop("prompt-too-long")
        replies = [self._one_end(sequence[size:]) for sequence in (chosen, rejected)]
        for side, reply in zip(("chosen", "rejected"), replies, strict=True):
            if not set(reply) - self.special_ids:
                return Drop(f"empty-{side}")
        chosen_ids, rejected_ids = (reply[:room] for reply in replies)
        if chosen_ids == rejected_ids:
            return Drop("identical-sides" if replies[0] == replies[1] else "identical-after-truncation")
        return TokenizedPair(
            prompt,
            chosen_ids,
            rejected_ids,
            *pair.pieces(),
            boundary_moved=size < len(alone),
            truncated=max(map(len, replies)) > room,
            prompt_restored=pair.prompt_restored,
        )

    def _one_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        while bos is not None and ids[:2] == [bos, bos]:
            del ids[0]
        return ids if self.added_bos is None or ids[:1] == [bos] else [bos, *ids]

    def _one_end(self, reply: list[int]) -> list[int]:
        """The reply with one end token: the template's end of turn where it wrote one, else EOS."""
        while len(reply) > 1 and reply[-1] == reply[-2] and reply[-1] in self.end_tokens.values():
            reply = reply[:-1]
        eos = self.tokenizer.eos_token_id
        ended = bool(reply) and reply[-1] in self.end_tokens.values()
        return reply if ended or eos is None else [*reply, eos]


def _characters(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(len(message["content"]) for message in text)


def _shortened(text: Text, most: int) -> Text:
    if isinstance(text, str):
        return text[:most]
    return [{**message, "content": message["content"][:most]} for message in text]


def tokenize_pair(
    row: PreferenceRow, tokenizer: PreTrainedTokenizerBase, max_length: int, max_prompt_length: int
) -> TokenizedPair | Drop:
    """Tokens of one pair, or why it has to be dropped; see ``PairTokenizer.tokenize``."""
    return PairTokenizer(tokenizer).tokenize([row], max_length, max_prompt_length)[0]
