"""The real command in this process, with what a pipe would send it."""

from __future__ import annotations

import io
import subprocess

import pytest
from chat_helpers import Az
from in_process import call_main


@pytest.fixture
def az(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Az:
    """Runs ``alignzoo WORDS`` with a text on stdin."""

    def run(*words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        return call_main(words, capfd)

    return run
