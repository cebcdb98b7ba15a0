"""``python -m alignzoo``; under a launcher of the user's own, ``torchrun -m alignzoo run ...``."""

from __future__ import annotations

import os
import signal
from typing import Any

from alignzoo.distributed.launch import WORLD
from alignzoo.errors import Interrupted


def main() -> None:
    """The ``alignzoo`` command, which Ctrl-C ends without a traceback while its modules are imported, too."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    from alignzoo.cli.main import main as command

    command()


def _interrupted(_number: int, _frame: Any) -> None:
    if WORLD not in os.environ:  # whoever started this process as one of several reports it
        os.write(2, b"error: interrupted\n")
    os._exit(Interrupted.exit_code)


if __name__ == "__main__":
    main()
