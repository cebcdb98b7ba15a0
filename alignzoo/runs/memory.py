"""The peak memory of one run, in a process that may have had others before it."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

from alignzoo.lazy import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK_OF_RESIDENT = "5"
"""What resets the high-water mark, see ``man 5 proc``."""


class PeakMemory:
    """Measures from its creation on: what torch has allocated on the accelerator, else the process's resident memory.

    Resident memory includes what earlier runs of the process have left; where its high-water mark cannot be reset, it
    is that of the whole process.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_PEAK_OF_RESIDENT)

    def peak(self) -> int | None:
        """Bytes; None if the system does not say."""
        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
        with contextlib.suppress(OSError, StopIteration, ValueError):
            line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
