"""Upload: the calls to a hub on this machine, and what is said if it does not take the folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from alignzoo_export.push import push

from alignzoo.errors import AlignzooError

SECRET = "hf_" + "secret" * 5


@dataclass
class Hub:
    """What a hub was asked for, and what it answers to the first request."""

    status: int = 200
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The few endpoints of a hub that an upload needs, on this machine."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            lines = [json.loads(line) for line in body.splitlines() if line]
            state.requests.append((self.command, self.path.partition("?")[0], lines))
            state.tokens.add(str(self.headers.get("Authorization")))
            self._answer(lines)

        def _answer(self, lines: list[Any]) -> None:
            address = f"http://127.0.0.1:{self.server.server_address[1]}"
            found: dict[str, Any] = {"url": f"{address}/me/safer"}
            if "/preupload/" in self.path:
                files = [{"path": one["path"], "uploadMode": "regular"} for one in lines[0]["files"]]
                found = {"files": [{**one, "shouldIgnore": False} for one in files]}
            elif "/commit/" in self.path:
                found = {"commitUrl": f"{address}/me/safer/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True}
            content = json.dumps(found).encode()
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *words: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    for name in ("README.md", "config.json", "model.safetensors"):
        (tmp_path / "out" / name).write_text(f"content of {name}")
    return tmp_path / "out"


def test_the_repository_is_created_and_every_file_uploaded(hub: Hub, folder: Path) -> None:
    address = push(folder, "me/safer", private=True)
    assert address.endswith("/me/safer")
    created = next(body[0] for _, path, body in hub.requests if path == "/api/repos/create")
    assert (created["name"], created["organization"]) == ("safer", "me")
    assert created.get("private") is True or created.get("visibility") == "private"
    committed = [line for _, path, body in hub.requests if "/commit/" in path for line in body]
    assert {line["value"]["path"] for line in committed if line["key"] == "file"} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    assert f"Bearer {SECRET}" in hub.tokens


@pytest.mark.parametrize(("status", "said"), [(401, "does not accept the token"), (403, "needs write access")])
def test_a_refusal_is_explained(status: int, said: str, hub: Hub, folder: Path) -> None:
    hub.status = status
    with pytest.raises(AlignzooError, match=said) as error:
        push(folder, "me/safer", private=True)
    assert f"hf upload me/safer {folder} . --private" in str(error.value)
    assert SECRET not in str(error.value)


def test_without_a_token(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(AlignzooError, match="there is no token") as error:
        push(folder, "me/safer", private=False)
    assert "hf auth login" in str(error.value)


def test_without_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AlignzooError, match="Connection refused") as error:
        push(folder, "me/safer", private=False)
    assert "check the network" in str(error.value)
    assert f"hf upload me/safer {folder} ." in str(error.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AlignzooError, match="offline mode"):
        push(folder, "me/safer", private=False)
