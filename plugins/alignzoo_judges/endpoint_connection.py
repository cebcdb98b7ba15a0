"""What judges behind an endpoint share: replies to many requests."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from alignzoo.errors import AlignzooError, ModelError, UsageError
from alignzoo.report import Reporter
from alignzoo_judges.endpoint_budget import Budget
from alignzoo_judges.endpoint_client import AGAIN, Client, Reply, is_local
from alignzoo_judges.endpoint_options import KEY_ENV, PATH, ConnectionOptions
from alignzoo_judges.endpoint_replies import Messages, replies

_LISTENS = 10.0
"""Seconds to wait for a connection before anything is sent."""
_STRIKES = 5
"""After so many unusable replies and no usable one, the endpoint is taken to be the wrong one."""


class Connection:
    """An endpoint that is ready to be asked.

    Args:
        name: of the judge, for messages.

    Raises:
        UsageError: the key in the environment cannot be sent, or would be sent in clear without having been named.
        ModelError: nothing listens there.
    """

    def __init__(self, name: str, options: ConnectionOptions, report: Reporter) -> None:
        self._name, self._options, self._report = name, options, report
        key = _key(options.key_env)
        in_clear = key is not None and options.url.startswith("http:") and not is_local(options.url)
        if in_clear and options.key_env == KEY_ENV:
            raise UsageError(
                f"judge {name}: the key in {KEY_ENV} would go to {urlsplit(options.url).netloc} unencrypted",
                hint="use https, or name that server's own key as key_env; a variable that is not set sends none",
            )
        _check_listens(options.url, options.timeout)
        self._budget = Budget(options.max_requests, options.max_cost, options.price_in or 0.0, options.price_out or 0.0)
        fields = {
            "model": options.model,
            "temperature": options.temperature,
            options.max_tokens_field: options.max_tokens,
        }
        self._about: Any = [options.url, fields]
        self._client = Client(
            options.url + PATH,
            key,
            fields,
            self._budget,
            max_tokens=options.max_tokens,
            timeout=options.timeout,
            retries=options.retries,
            backoff=options.backoff,
        )
        with_key = "" if key else f", without a key ({options.key_env} is not set)"
        report.note(f"judge {name}: requests and responses are sent to {self._client.host}{with_key}")
        if in_clear:
            report.warn(f"judge {name}: the key and all texts go to {self._client.host} unencrypted; use https")

    def replies(self, texts: Sequence[str]) -> Iterator[Reply]:
        """The reply to each text, in order, as soon as it is known; one that is no chat completion has no text.

        Raises:
            AlignzooError: a request failed after all retries, a cap is reached, or the endpoint is not usable.
        """
        done = 0
        try:
            for reply in self._tried(
                replies(self._client, self._messages(texts), self._about, self._options.concurrency)
            ):
                yield reply
                done += 1
        except AlignzooError as error:
            # From None: nothing that a server wrote may come to light in a traceback.
            raise type(error)(
                f"judge {self._name} stopped after {done} of {len(texts)} requests: {error.message}",
                hint=error.hint or AGAIN,
            ) from None

    def _messages(self, texts: Sequence[str]) -> list[Messages]:
        system = [{"role": "system", "content": self._options.system}] if self._options.system else []
        return [[*system, {"role": "user", "content": text}] for text in texts]

    def _tried(self, given: Iterator[Reply]) -> Iterator[Reply]:
        """The replies; unusable ones at the start are held back until there is a usable one.

        Raises:
            ModelError: the first replies are all unusable.
        """
        held: list[Reply] = []
        for reply in given:
            held.append(reply)
            if reply.text is None and len(held) < _STRIKES:
                continue
            if reply.text is None:
                raise ModelError(
                    f"the first {_STRIKES} replies of {self._client.host} are no chat completions: {reply.raw.strip()}",
                    hint="check the judge's url (it usually ends in /v1) and model",
                )
            yield from held
            yield from given
            return
        yield from held

    def close(self) -> None:
        """Say what was spent."""
        if self._budget.requests:
            priced = self._options.price_in is not None or self._options.price_out is not None
            cost = f", cost {self._budget.cost:.4g}" if priced else ""
            self._report.note(f"judge {self._name}: {self._budget.requests} requests to {self._client.host}{cost}")


def _key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"the key in {variable} has characters that no key has", hint="set it again, without quotes")
    return key or None


def _check_listens(url: str, timeout: float) -> None:
    """Connect once, without sending anything; behind a proxy, only the first request can tell.

    Raises:
        ModelError: nothing listens there.
    """
    parts = urlsplit(url)
    host = str(parts.hostname)
    if parts.scheme in getproxies() and not proxy_bypass(host) and not is_local(url):
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((host, port), min(timeout, _LISTENS)).close()
    except OSError as error:
        raise ModelError(
            f"{parts.netloc} cannot be reached: {error.strerror or error}",
            hint="start the server, or check the judge's url",
        ) from error
