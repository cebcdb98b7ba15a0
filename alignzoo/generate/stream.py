"""One response, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alignzoo.errors import DataError
from alignzoo.generate.batched import fitting, generate
from alignzoo.generate.decoding import Decoding
from alignzoo.generate.inference import evaluation_mode
from alignzoo.model.base import without_adapter

_UNFINISHED = "\ufffd"
"""What a decoder writes for the first bytes of a character."""


def stream(model: Any, tokenizer: Any, ids: Sequence[int], decoding: Decoding) -> Iterator[str]:
    """Pieces of the response's text, as they come; together the text that :func:`generate` gives. Close it to stop.

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
    return _pieces(model, tokenizer, fitting(model, tokenizer, ids, decoding.max_new_tokens), decoding)


def _pieces(model: Any, tokenizer: Any, ids: list[int], decoding: Decoding) -> Iterator[str]:
    from alignzoo.generate.loop import Loop, steps_alone

    if not steps_alone(model):
        yield from (response.text for _, response in generate(model, tokenizer, [ids], decoding) if response.text)
        return
    with evaluation_mode(model):
        loop = Loop(without_adapter(model), tokenizer, {0: ids}, decoding, 1)
        written = ""
        while True:
            ended = loop.advance()
            row = (ended or loop.rows)[0]
            text = loop.ending.response(row.new).text
            if not ended:
                text = _settled(text, loop.ending.until)
            if len(text) > len(written):
                yield text[len(written) :]
                written = text
            if ended:
                return


def _settled(text: str, until: Sequence[str]) -> str:
    """The part of ``text`` that more tokens cannot change."""
    while text.endswith(_UNFINISHED):
        text = text[:-1]
    begun = [size for stop in until for size in range(1, len(stop)) if text.endswith(stop[:size])]
    return text[: -max(begun)] if begun else text
