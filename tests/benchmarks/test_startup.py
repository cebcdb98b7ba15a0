"""The benchmarks of start-up and of whole steps by precision, on the sandbox's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alignzoo_sandbox import MODEL_PATH

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow  # two processes that import torch
def test_a_run_is_measured_up_to_its_first_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    startup: Any = __import__("startup")
    startup.main(["--model", str(MODEL_PATH), "--data", "sandbox", "--rounds", "1"])
    header, _, cold, warm = capsys.readouterr().out.splitlines()
    names = [name.strip() for name in header.strip("|").split("|")]
    assert names[1:] == [*startup.STAGES, "total", "cpu", "total, least and most"]
    for case, line in (("cold", cold), ("warm", warm)):
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        stages, total = [float(cell) for cell in cells[:5]], float(cells[5])
        assert name == case
        assert sum(stages) == pytest.approx(total, abs=0.3)
        assert stages[0] > 0
