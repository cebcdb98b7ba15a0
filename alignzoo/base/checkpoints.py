"""Where the checkpoints of a run folder are, and what can be read of them without loading any weight."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from alignzoo.base.stored import read_sealed
from alignzoo.errors import DamagedError

STATE_FILE = "state.json"
_NAME = re.compile(r"step-\d{8,}")


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first; whether they are whole is not checked."""
    found = [path for path in (folder / "checkpoints").glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number of optimizer steps a checkpoint's folder stands for."""
    return int(checkpoint.name.removeprefix("step-"))


def planned_values(folder: Path) -> dict[str, Any] | None:
    """The values of the run's plan as its newest readable checkpoint has them; None before the first."""
    for path in reversed(checkpoints_of(folder)):
        with contextlib.suppress(DamagedError):
            planned: dict[str, Any] = read_sealed(path / STATE_FILE)["plan"]
            return planned
    return None
