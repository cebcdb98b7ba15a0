"""The real ``main`` without a new process, for the many command lines that differ in their words only."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

from alignzoo.cli.main import main


def call_main(words: Sequence[str], capfd: pytest.CaptureFixture[str]) -> subprocess.CompletedProcess[str]:
    """Run ``alignzoo WORDS``; what it printed and its exit code come back as from a process."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main(list(words))
    captured = capfd.readouterr()
    assert isinstance(end.value.code, int)
    return subprocess.CompletedProcess(list(words), end.value.code, captured.out, captured.err)
