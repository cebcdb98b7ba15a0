"""A chat-completions endpoint on 127.0.0.1 that fails, delays and lies as it is told."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[str, int], dict[str, Any]]
"""From the last message of a request and how often it was seen before, to what to do: ``status``, ``headers``,
``text`` (of the model), ``body`` (instead of a completion), ``usage``, ``delay`` (seconds), ``reset``."""


@dataclass
class Endpoint:
    """What a server has seen.

    Attributes:
        seen: by message, how often it was asked.
        served: by message, how often it was answered with a completion.
        most_at_once: requests in progress at the same time.
    """

    url: str
    behaviour: Behaviour
    seen: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        return sum(self.seen.values())


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Endpoint]:
    """An endpoint that behaves so while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = body["messages"][-1]["content"]
            with endpoint.lock:
                before = endpoint.seen[message]
                endpoint.seen[message] += 1
                endpoint.headers.append(dict(self.headers))
                endpoint.bodies.append(body)
                endpoint.times.append(time.monotonic())
                endpoint.at_once += 1
                endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
            try:
                self._act(message, endpoint.behaviour(message, before))
            finally:
                with endpoint.lock:
                    endpoint.at_once -= 1

        def _act(self, message: str, action: dict[str, Any]) -> None:
            time.sleep(action.get("delay", 0))
            if action.get("reset"):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            status = action.get("status", 200)
            completion = {
                "choices": [{"message": {"role": "assistant", "content": action.get("text")}}],
                **({"usage": action["usage"]} if "usage" in action else {}),
            }
            content = action.get("body", json.dumps(completion)).encode()
            if status == 200 and "body" not in action:
                with endpoint.lock:
                    endpoint.served[message] += 1
            self.send_response(status)
            for name, value in action.get("headers", {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", behaviour)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
