"""A model of one's own with the embedded data, or the other way round, is asked for and not assumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import Az


@pytest.mark.parametrize(
    ("words", "missing"),
    [(["--model", "my/model"], "--data"), (["--data", "pairs.jsonl"], "--model")],
)
def test_one_without_the_other_is_refused(
    az_here: Az, words: list[str], missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").touch()  # --dry-run looks whether it is there
    ended = az_here("run", *words, "--dry-run")
    assert ended.returncode == 2
    assert f"{words[0]} needs {missing} as well" in ended.stderr
    assert f"{missing} sandbox" in ended.stderr
    assert az_here("run", *words, missing, "sandbox", "--dry-run").returncode == 0
