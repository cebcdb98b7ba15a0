"""How the C library treats freed memory, and when Python looks for unreachable objects."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # see ``man 3 mallopt``
_LARGE = (1 << 30, 32 << 20)
"""Block sizes from which memory is mapped for each block alone; older versions refuse the larger one."""
_KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep memory that tensors free, for the next tensors; whether it does.

    By default it returns every block of 32 MiB or more, and any free end of the heap, to the system, which must then
    zero each page again. An environment that says how it is to be done
    (``MALLOC_…_`` or ``GLIBC_TUNABLES``) is left alone.
    """
    given = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if given or not sys.platform.startswith("linux"):
        return False
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        return any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGE) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
    return False


@contextmanager
def collecting_later(*, freeze: bool = False) -> Iterator[None]:
    """Inside, Python does not look for unreachable objects: for imports, which make hundreds of thousands of lasting
    ones and would visit them again and again, a fifth of their time.

    Args:
        freeze: it never visits what is there at the end, unless something was frozen before. For a process of our own:
            what becomes unreachable of these objects stays in memory.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if freeze and not gc.get_freeze_count():
            gc.freeze()
    finally:
        if enabled:
            gc.enable()
