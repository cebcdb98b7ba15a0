"""One chat completion from an OpenAI-compatible endpoint: HTTP, retries, and what the reply says.

Certificates are verified. Redirects are not followed: they would take the key to another host. A server on this machine
is asked without the proxies of the environment, which could read the key. The key appears in no message, whatever a
server writes back.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from ssl import SSLCertVerificationError
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from alignzoo.base.shown import clipped
from alignzoo.errors import AlignzooError, ModelError
from alignzoo_judges.endpoint_budget import Budget

AGAIN = "what was judged is kept; start the same command again to resume"
_TRANSIENT = (408, 409, 425, 429)
"""Besides no answer at all, and every 5xx."""
_REJECTED = (400, 413, 422)
"""Refusals of one request, such as by a content filter or for its length: not of all."""
_LONGEST_WAIT = 300.0
"""Seconds: a server that asks for a longer pause ends the command instead."""
_LARGEST = 4 << 20
_SHORTEST_SECRET = 8  # characters: local servers take placeholders such as "EMPTY"
_PER_MESSAGE = 16  # tokens around a message's text, at most


class Stopped(Exception):
    """The command is ending: nothing more is sent."""


@dataclass(frozen=True)
class Reply:
    """What the endpoint wrote.

    Attributes:
        text: the model's; None if there is none.
        raw: the text, or what came instead of one.
    """

    text: str | None
    raw: str


@dataclass(frozen=True)
class _Answer:
    """An HTTP response, or (status 0) why there is none.

    Attributes:
        sent: the request may have been served, and charged for.
    """

    status: int
    body: str
    pause: float = 0.0
    sent: bool = False


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    """Sends requests; usable from several threads.

    Args:
        url: of the chat completions.
        key: sent as a bearer token; None sends none.
        fields: of every request, besides its messages.
        max_tokens: of a reply, for the cap on cost.
        retries: how often a failed request is sent again.
        backoff: seconds before the first retry; doubled for each further one, less up to half at random.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        fields: Mapping[str, Any],
        budget: Budget,
        *,
        max_tokens: int,
        timeout: float,
        retries: int,
        backoff: float,
    ) -> None:
        self._url, self._key, self._fields, self._budget = url, key, dict(fields), budget
        self._max_tokens, self._timeout, self._retries, self._backoff = max_tokens, timeout, retries, backoff
        self._opener = build_opener(_NoRedirects, *([ProxyHandler({})] if is_local(url) else []))
        self.stopped = threading.Event()

    def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        """The reply to some messages; one that is no chat completion has no text.

        Raises:
            CapReached: it would exceed the budget.
            ModelError: the endpoint does not accept such requests at all.
            AlignzooError: it failed, and so did the retries.
            Stopped: the client was stopped.
        """
        content = json.dumps({**self._fields, "messages": [dict(message) for message in messages]}).encode()
        most_in = len(content) + _PER_MESSAGE * (len(messages) + 1)  # a token has at least one byte
        for attempt in range(self._retries + 1):
            if self.stopped.is_set():
                raise Stopped
            answer = self._charged(content, most_in)
            if answer.status == 200 or answer.status in _REJECTED:
                return self._reply(answer)
            if answer.status not in (0, *_TRANSIENT) and answer.status < 500:
                raise self._unusable(answer)
            if answer.pause > _LONGEST_WAIT:
                self._give_up(answer, f"asks to wait {answer.pause:.0f} s")
            if attempt < self._retries:
                self.stopped.wait(max(answer.pause, self._backoff * 2**attempt * random.uniform(0.5, 1)))
        return self._give_up(answer, f"failed {self._retries + 1} times")

    @property
    def host(self) -> str:
        """The endpoint's host, with a port that is not the usual one."""
        return urlsplit(self._url).netloc

    def _charged(self, content: bytes, most_in: int) -> _Answer:
        reserved = self._budget.reserve(most_in, self._max_tokens)
        cost = reserved  # also if this thread dies: what was sent may be charged
        try:
            answer = self._sent(content)
            if answer.status == 200:
                cost = self._cost(answer.body, reserved)
            elif not answer.sent:
                cost = 0.0
        finally:
            self._budget.settle(reserved, cost)
        return answer

    def _cost(self, body: str, reserved: float) -> float:
        """By the reply's own count of tokens; without a plausible one, the most it can have cost."""
        usage = (_object(body) or {}).get("usage")
        if isinstance(usage, dict):
            tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if isinstance(tokens_in, int) and isinstance(tokens_out, int) and _plausible(tokens_in, tokens_out):
                return self._budget.price(tokens_in, tokens_out)
        return reserved

    def _sent(self, content: bytes) -> _Answer:
        headers = {"Content-Type": "application/json", "User-Agent": "alignzoo"}
        request = Request(self._url, content, headers, method="POST")
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        deadline = time.monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return _Answer(response.status, self._read(response, deadline))
        except HTTPError as error:
            with error:
                return _Answer(error.code, self._refusal(error, deadline), _pause(error.headers))
        except (OSError, HTTPException) as error:
            return self._broken(error)

    def _broken(self, error: Exception) -> _Answer:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, SSLCertVerificationError):
            raise ModelError(
                f"{self.host}: its certificate cannot be verified: {reason.verify_message}",
                hint="check the url; for a private authority, set SSL_CERT_FILE",
            )
        words = "no answer in time" if isinstance(reason, TimeoutError) else str(reason) or type(reason).__name__
        return _Answer(0, self._without_key(words), sent=not isinstance(error, URLError))

    def _refusal(self, error: HTTPError, deadline: float) -> str:
        """A server's own words, as far as they can be read."""
        try:
            body = self._read(error, deadline)
        except (OSError, HTTPException):
            body = ""
        if error.code in range(300, 400):
            return self._without_key(str(error.headers.get("Location", "")))
        stated = (_object(body) or {}).get("error")
        return self._without_key(str(stated.get("message", body))) if isinstance(stated, dict) else body

    def _read(self, response: Any, deadline: float) -> str:
        """The body, as far as the deadline and the largest size allow.

        Raises:
            TimeoutError: it takes too long.
        """
        parts: list[bytes] = []
        while (part := response.read1(1 << 16)) and sum(map(len, parts)) < _LARGEST:
            if time.monotonic() > deadline:
                raise TimeoutError
            parts.append(part)
        return self._without_key(b"".join(parts).decode("utf-8", "replace"))

    def _reply(self, answer: _Answer) -> Reply:
        body = _object(answer.body) if answer.status == 200 else None
        text: Any = None
        if body is not None and isinstance(choices := body.get("choices"), list) and choices:
            message = choices[0].get("message") if isinstance(choices[0], dict) else None
            text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            return Reply(None, clipped(answer.body or f"status {answer.status}, empty body"))
        return Reply(self._without_key(text), self._without_key(text))

    def _unusable(self, answer: _Answer) -> AlignzooError:
        """An answer that would be the same to every request."""
        said = f": {clipped(answer.body)}" if answer.body.strip() else ""
        if answer.status in range(300, 400):
            return ModelError(
                f"{self.host} redirects elsewhere (status {answer.status}){said}",
                hint="redirects are not followed, which keeps the key where it belongs; give the final url",
            )
        hint = {
            401: "set the key in the environment variable that the judge's key_env names",
            403: "the key may not use this model or endpoint",
            404: "check the judge's url (it usually ends in /v1) and model",
        }.get(answer.status, "check the judge's url and model")
        return ModelError(f"{self.host} answers with status {answer.status}{said}", hint=hint)

    def _give_up(self, answer: _Answer, what: str) -> Reply:
        status = f"status {answer.status}" if answer.status else "no connection"
        said = f": {clipped(answer.body)}" if answer.body.strip() else ""
        raise AlignzooError(f"{self.host} {what} ({status}{said})", hint=AGAIN)

    def _without_key(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode()  # JSON can escape half a character, which no file takes
        if self._key is None or len(self._key) < _SHORTEST_SECRET:
            return text
        return text.replace(self._key, "[key]")


def is_local(url: str) -> bool:
    """Whether a url is of this machine."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _object(body: str) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _plausible(*tokens: int) -> bool:
    return all(0 <= count <= _LARGEST for count in tokens)


def _pause(headers: Message) -> float:
    """Seconds that ``Retry-After`` asks for, given as a number or a date."""
    stated = str(headers.get("Retry-After", "")).strip()
    try:
        return max(0.0, float(stated))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(stated).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
