"""Damage of every kind to a file that was written well: seeded, so that what is found once is found again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

STRANGE: tuple[Any, ...] = (None, True, False, -1, 0, 1e308, float("nan"), "", "x", [], {}, [None], {"x": 1}, 10**400)

INSERTED = (b"\x00", b"\xff\xfe", b"\n", b'"', b"{", b"[", b"}", b"9", b"-", b": ", b"\n- x\n", b"\nnull\n")


def damaged(content: bytes, count: int, *, seed: int = 0) -> Iterator[bytes]:
    """``count`` damaged versions of a file's content; of JSON and lines of JSON every other one still is some."""
    draws = random.Random(seed)
    for number in range(count):
        restated = _restated(content, draws) if number % 2 else None
        yield _bytes(content, draws) if restated is None else restated


def _bytes(content: bytes, draws: random.Random) -> bytes:
    start = draws.randrange(len(content))
    end = min(len(content), start + draws.choice((1, 1, 1, 2, 8, 64, len(content))))
    before, middle, after = content[:start], content[start:end], content[end:]
    return draws.choice(
        (
            before + bytes([middle[0] ^ 1 << draws.randrange(8)]) + middle[1:] + after,
            before + draws.randbytes(len(middle)) + after,
            before + bytes(len(middle)) + after,
            before + after,
            before,
            content + middle,
            before + middle + middle + after,
            before + draws.choice(INSERTED) + after,
        )
    )


def _restated(content: bytes, draws: random.Random) -> bytes | None:
    """JSON, or one line of several, with a value, a key or an entry changed; None where it is neither."""
    lines = content.splitlines()
    row = draws.randrange(len(lines)) if lines else 0
    for whole in (False, True):
        try:
            value = json.loads(content if whole else lines[row])
        except ValueError:
            continue
        text = json.dumps(_changed(value, draws)).encode()
        return text if whole else b"\n".join([*lines[:row], text, *lines[row + 1 :], b""])
    return None


def _changed(value: Any, draws: random.Random) -> Any:
    """The value with something changed in it or in its place."""
    if isinstance(value, dict) and value and draws.random() < 0.9:
        key = draws.choice(list(value))
        rest = {name: item for name, item in value.items() if name != key}
        how = draws.random()
        if how < 0.1:
            return rest
        if how < 0.2:
            return {**rest, f"{key}x": value[key]}
        return {**value, key: _changed(value[key], draws)}
    if isinstance(value, list) and value and draws.random() < 0.7:
        place = draws.randrange(len(value))
        return [*value[:place], _changed(value[place], draws), *value[place + 1 :]]
    return draws.choice(STRANGE)
