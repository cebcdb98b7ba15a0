"""What both workers share: the clock of a run's steps and the line they print. Standard library only."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets")


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        model: a folder with fp32 weights and a tokenizer.
        tokens: a JSON file with ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``, lists of one entry a pair, in the
            order of the steps.
        pairs: of a step, all of them in one forward pass.
        steps: timed ones; one more goes first.
        scratch: an empty folder.
        checkpointing: activations are computed again in the backward pass.
        settings: of alignzoo's side alone, by flag; they replace what the job says otherwise, and None leaves one out.
    """

    model: str
    tokens: str
    pairs: int
    steps: int
    max_length: int
    cached: bool
    precision: str
    lora: int
    threads: int
    scratch: str
    lr: float = 1e-6
    seed: int = 0
    checkpointing: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_command_line(cls) -> tuple[Job, float]:
        """The job and when, by ``time.time()``, the process was started."""
        parser = argparse.ArgumentParser()
        parser.add_argument("job", type=Path)
        parser.add_argument("--began", type=float, default=time.time())
        arguments = parser.parse_args()
        return cls(**json.loads(arguments.job.read_text())), arguments.began

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Clock:
    """Times and memory of a run, from its first step on.

    Attributes:
        imported: bytes held after the imports.
        start: seconds from the start of the process to the first step.
        ends: when each step was over; the first one is for warming up.
        peak: bytes held at most, up to the end of the last step: of the process, or on the GPU where it uses one, there
            from the first step on.
    """

    began: float
    imported: int = 0
    start: float = 0.0
    ends: list[float] = field(default_factory=list)
    peak: int = 0

    def imports_done(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.imported = pages * os.sysconf("SC_PAGE_SIZE")

    def first_step(self) -> None:
        if self.start:
            return
        self.start = time.time() - self.began
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()

    def step_done(self) -> None:
        torch = sys.modules.get("torch")
        on_a_gpu = torch is not None and torch.cuda.is_initialized()
        if torch is not None and on_a_gpu:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.peak = torch.cuda.max_memory_allocated() if torch is not None and on_a_gpu else peak

    def show(self, **figures: Any) -> None:
        """Print what was measured, and ``figures`` with it, as the last line of stdout."""
        seconds = [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]
        line = {"start": self.start, "seconds": seconds, "peak": self.peak, "imported": self.imported, **figures}
        print(json.dumps({**line, "versions": {name: version(name) for name in PACKAGES}}), flush=True)
