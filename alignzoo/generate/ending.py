"""Where a response ends, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.generate.decoding import Response

_SPARE = 4
"""Tokens to look back beyond the longest stop text: decoding can change the first of them."""


class Ending:
    """End tokens and stop texts, as lm-eval applies them.

    A response ends with an end token of the model's generation config or of the tokenizer, or when its text contains
    one of ``until``; the text is cut at the first of these.
    """

    def __init__(self, model: Any, tokenizer: Any, until: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.tokens = end_tokens(model, tokenizer)
        self.until = tuple(stop for stop in until if stop)
        # A token that adds text adds at least one byte.
        self._window = max((len(stop.encode()) for stop in self.until), default=0) + _SPARE

    def reached(self, new: Sequence[int]) -> bool:
        """Whether a response ends with the last of its tokens."""
        if new[-1] in self.tokens:
            return True
        if not self.until:
            return False
        tail = self.tokenizer.decode(new[-self._window :])
        return any(stop in tail for stop in self.until)

    def response(self, new: Sequence[int]) -> Response:
        """The response with these tokens."""
        text = str(self.tokenizer.decode(new, skip_special_tokens=True))
        for stop in self.until:
            text = text.split(stop)[0]
        return Response(text, len(new), bool(new) and self.reached(new))


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a response: of the model's generation config, and the tokenizer's EOS."""
    stated = getattr(model.generation_config, "eos_token_id", None)
    ids = {stated} if isinstance(stated, int) else set(stated or ())
    return frozenset({int(index) for index in ids} | {tokenizer.eos_token_id} - {None})
