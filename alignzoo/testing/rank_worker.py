"""One rank of :mod:`alignzoo.testing.ranks`: reads jobs from stdin, answers on what was stdout."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import traceback
from datetime import timedelta
from typing import Any, BinaryIO

_HEADER = struct.Struct("!Q")


def main(rendezvous: str, patience: float) -> None:
    """Join the other rank, then serve until stdin ends.

    Args:
        rendezvous: the file over which the ranks find each other; no port that others could take.
        patience: seconds until a collective gives up.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a method's print must not get between the answers
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=patience),
    )
    while (message := _next(sys.stdin.buffer)) is not None:
        answer = pickle.dumps(_answer(message))
        answers.write(_HEADER.pack(len(answer)) + answer)
        answers.flush()


def _next(stream: BinaryIO) -> bytes | None:
    header = stream.read(_HEADER.size)
    return stream.read(_HEADER.unpack(header)[0]) if len(header) == _HEADER.size else None


def _answer(message: bytes) -> tuple[bool, Any]:
    from alignzoo.testing.modules import load

    try:
        path, wanted, payload = pickle.loads(message)
        sys.path += [folder for folder in path if folder not in sys.path]
        load(wanted)
        job, arguments = pickle.loads(payload)
        return True, job(*arguments)
    except Exception as error:
        traceback.print_exc()
        return False, f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
