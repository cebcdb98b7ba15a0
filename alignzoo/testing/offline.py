"""Checks contact nothing: a judge of a hosted model would send texts and a key, a preset would fetch its weights."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_REFUSAL = "a check contacts nothing"


@contextmanager
def without_network() -> Iterator[None]:
    """Connections are refused, those to this machine included, and models of the hub come from its cache only."""
    from huggingface_hub import constants

    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def refusing_connect(self: socket.socket, address: Any) -> None:
        _check_allowed(self)
        connect(self, address)

    def refusing_connect_ex(self: socket.socket, address: Any) -> int:
        _check_allowed(self)
        return connect_ex(self, address)

    def refusing_lookup(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_FAIL, _REFUSAL)

    replaced: tuple[tuple[Any, str, Any], ...] = (
        (socket.socket, "connect", refusing_connect),
        (socket.socket, "connect_ex", refusing_connect_ex),
        (socket, "getaddrinfo", refusing_lookup),
        (constants, "HF_HUB_OFFLINE", True),
    )
    before = [getattr(owner, name) for owner, name, _ in replaced]
    try:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(replaced, before, strict=True):
            setattr(owner, name, value)


def _check_allowed(connecting: socket.socket) -> None:
    """Sockets between processes of this machine may connect.

    Raises:
        OSError: it is another one.
    """
    if connecting.family != getattr(socket, "AF_UNIX", None):
        raise OSError(errno.ENETUNREACH, _REFUSAL)
