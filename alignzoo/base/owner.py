"""Which process something belongs to, and whether it is still running: for locks and for leftovers in caches."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(r"([0-9a-f]{8})\.(\d+)\.([0-9a-f-]*)")


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        host: a hash of machine name and container, since pids are only meaningful inside it; 8 hex digits.
        started: the boot and clock tick at which it started, because pids are reused; empty where unknown.
    """

    host: str
    pid: int
    started: str

    @staticmethod
    def this() -> Owner:
        """The current process."""
        return Owner(_this_host(), os.getpid(), _start_of(os.getpid()) or "")

    @staticmethod
    def parse(text: str) -> Owner | None:
        """The owner of a :attr:`token`; None for anything else."""
        match = _TOKEN.fullmatch(text)
        return None if match is None else Owner(match[1], int(match[2]), match[3])

    @property
    def token(self) -> str:
        """The owner as part of a file name."""
        return f"{self.host}.{self.pid}.{self.started}"

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine; elsewhere there is no telling whether it still runs."""
        return self.host == _this_host()

    def runs(self) -> bool:
        """Whether a process of this machine is still running."""
        if Path("/proc/self/stat").exists():
            return _start_of(self.pid) == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's
            return True
        return True


def _this_host() -> str:
    try:
        pids = Path("/proc/self/ns/pid").readlink()
    except OSError:
        pids = Path()
    return hashlib.sha256(f"{socket.gethostname()} {pids}".encode()).hexdigest()[:8]


def _start_of(pid: int) -> str | None:
    """When a process started; None if it has ended or is a zombie."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        facts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, start = facts[0], facts[19]
    return None if state in "ZX" else f"{boot}-{int(start):x}"
