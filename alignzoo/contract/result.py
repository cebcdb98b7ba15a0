"""What a run gives back, and observers get at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.base.files import write_json
from alignzoo.base.stored import read_as, sealed

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run folder.
        sentence: the methods, as the words of a command line.
        before, after: figures of the evaluations: ``eval/…`` on held-out pairs, ``EVALUATOR/…`` from generated answers.
        seconds: wall-clock time of this process, loading included.
        peak_memory: bytes on the accelerator, else resident in this process, at most during the run; None if unknown.
        train_identity: hash of the training pairs in order; runs that share it trained on the same pairs and labels.
    """

    folder: str
    sentence: str
    status: str
    steps: int
    tokens: int
    seconds: float
    pairs: dict[str, int]
    weights: str
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    train_identity: str = ""
    peak_memory: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def save(self) -> None:
        """Write ``result.json`` into the run folder."""
        write_json(Path(self.folder) / RESULT_FILE, sealed(self.to_dict()))

    @classmethod
    def load(cls, folder: Path) -> RunResult | None:
        """The result of a run folder, None if the run has not finished.

        Raises:
            DamagedError: it is not what was written.
        """
        path = folder / RESULT_FILE
        return read_as(path, cls) if path.is_file() else None
