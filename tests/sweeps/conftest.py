"""Sweeps as users start them, on the embedded model and a few pairs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from alignzoo_sandbox import preference_rows
from in_process import call_main

Here = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Here:
    """Runs ``alignzoo sweep WORDS`` in this process; its workers are processes of their own."""
    return lambda *words: call_main(["sweep", *words], capfd)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """24 pairs in a file."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in preference_rows("train", 24)))
    return path
