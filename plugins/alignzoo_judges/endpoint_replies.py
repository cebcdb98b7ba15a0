"""Replies in the order of their requests, several requests at a time; none that arrived is paid for twice.

A reply that arrives while an earlier one is still awaited is kept in ``$ALIGNZOO_CACHE/judge-replies`` until it has
been handed on: if the command ends before that, the next one takes it from there.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from alignzoo.base.cache import cache_folder
from alignzoo.base.files import whole
from alignzoo.base.stored import value_digest
from alignzoo_judges.endpoint_client import Client, Reply

_AHEAD = 4
"""Requests in progress or answered ahead of the first one awaited, per connection."""
Messages = Sequence[Mapping[str, str]]


class Arrived:
    """Replies that are not handed on yet, in files.

    Args:
        about: what a reply depends on besides its messages, JSON-able.
    """

    def __init__(self, about: object) -> None:
        self._about = about
        self._folder = cache_folder("judge-replies")

    def get(self, messages: Messages) -> Reply | None:
        """The reply kept for some messages."""
        try:
            stored = json.loads(self._path(messages).read_text(encoding="utf-8"))
            text, raw = stored["text"], stored["raw"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return Reply(text, raw) if isinstance(text, str) and isinstance(raw, str) else None

    def put(self, messages: Messages, reply: Reply) -> None:
        """Keep a reply that has a text; a disk that refuses costs nothing but the reply."""
        if reply.text is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with whole(self._path(messages), durable=False) as path:
                path.write_text(json.dumps(vars(reply)), encoding="utf-8")

    def drop(self, messages: Messages) -> None:
        """Forget a reply that was handed on."""
        with contextlib.suppress(OSError):
            self._path(messages).unlink(missing_ok=True)

    def _path(self, messages: Messages) -> Path:
        return self._folder / f"{value_digest([self._about, [dict(message) for message in messages]])}.json"


def replies(client: Client, requests: Sequence[Messages], about: object, concurrency: int) -> Iterator[Reply]:
    """The reply to each request, in order, each as soon as it and all before it are there.

    Raises:
        AlignzooError: a request failed; those before it were handed on.
    """
    arrived = Arrived(about)

    def one(messages: Messages) -> Reply:
        kept = arrived.get(messages)
        if kept is not None:
            return kept
        reply = client.ask(messages)
        arrived.put(messages, reply)
        return reply

    client.stopped.clear()
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="endpoint")
    waiting: deque[tuple[Messages, Future[Reply]]] = deque()
    left = iter(requests)
    try:
        while True:
            while len(waiting) < _AHEAD * concurrency and (messages := next(left, None)) is not None:
                waiting.append((messages, pool.submit(one, messages)))
            if not waiting:
                return
            messages, future = waiting.popleft()
            yield future.result()
            arrived.drop(messages)
    finally:
        client.stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
