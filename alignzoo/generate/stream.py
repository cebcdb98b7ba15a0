"""One response, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alignzoo.generate.batched import generate
from alignzoo.generate.decoding import Decoding


def stream(model: Any, tokenizer: Any, ids: Sequence[int], decoding: Decoding) -> Iterator[str]:
    """Pieces of the response's text, as they come; close the iterator to stop."""
    for _, response in generate(model, tokenizer, [ids], decoding):
        yield response.text
