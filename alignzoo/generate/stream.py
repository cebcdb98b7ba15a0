"""One response, piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from alignzoo.errors import DataError
from alignzoo.generate.batched import fitting, generate
from alignzoo.generate.decoding import Decoding
from alignzoo.generate.inference import evaluation_mode
from alignzoo.model.base import without_adapter

_UNFINISHED = "\ufffd"
"""What a decoder writes for the first bytes of a character."""


class Stream(Iterator[str]):
    """A response's text in pieces, as they come. Close it to stop.

    Attributes:
        tokens: number of new tokens so far, the end token included.
        ended: of a complete response, whether the model (or an ``until`` text) ended it; False if it was cut at
            ``max_new_tokens``. None while it is not complete.
    """

    def __init__(self, model: Any, tokenizer: Any, ids: list[int], decoding: Decoding) -> None:
        self.tokens = 0
        self.ended: bool | None = None
        self._pieces = self._generated(model, tokenizer, ids, decoding)

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Stop; the model's training flags are restored."""
        self._pieces.close()

    def _generated(self, model: Any, tokenizer: Any, ids: list[int], decoding: Decoding) -> Generator[str, None, None]:
        from alignzoo.generate.loop import Loop, steps_alone

        if not steps_alone(model):
            for _, response in generate(model, tokenizer, [ids], decoding):
                if response.text:
                    yield response.text
                self.tokens, self.ended = response.tokens, response.ended
            return
        with evaluation_mode(model):
            loop = Loop(without_adapter(model), tokenizer, {0: ids}, decoding, 1)
            written = ""
            while loop.unfinished:
                over = loop.advance()
                response = loop.ending.response((over or loop.rows)[0].new)
                text = response.text if over else _settled(response.text, loop.ending.until)
                self.tokens = response.tokens
                if len(text) > len(written):
                    yield text[len(written) :]
                    written = text
            self.ended = response.ended


def stream(model: Any, tokenizer: Any, ids: Sequence[int], decoding: Decoding) -> Stream:
    """Pieces of the response's text, as they come; together the text that :func:`generate` gives.

    A character of several tokens comes when it is whole, and what may be the beginning of an ``until`` text when it
    has turned out not to be. The response of a model that only generates through its own ``generate`` comes in one
    piece.

    Args:
        ids: token ids of the prompt.

    Raises:
        DataError: an empty prompt.
        UsageError: ``max_new_tokens`` leaves no room for a prompt.
    """
    if not len(ids):
        raise DataError("the prompt has no tokens", hint="a model continues at least one token")
    return Stream(model, tokenizer, fitting(model, tokenizer, ids, decoding.max_new_tokens), decoding)


def _settled(text: str, until: Sequence[str]) -> str:
    """The part of ``text`` that more tokens cannot change."""
    while text.endswith(_UNFINISHED):
        text = text[:-1]
    begun = [size for stop in until for size in range(1, len(stop)) if text.endswith(stop[:size])]
    return text[: -max(begun)] if begun else text
