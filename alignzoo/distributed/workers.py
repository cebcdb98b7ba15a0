"""The workers of one run on this node: started by torchrun's elastic launcher, stopped by signals, and heard out.

A worker says why it ended in the error file that the launcher gives it; the process that started it reports the cause.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.stop import ignore_requests, stop_requests
from alignzoo.errors import AlignzooError

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

INTERRUPTED = 130
"""The exit code of a worker that was asked to stop."""
_FACTS = "alignzoo"
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
_FOLDER = "alignzoo-workers-"
_TOGETHER = 10.0
"""Seconds within which failures have one cause; the launcher kills what hangs on after 30."""
_JOIN_SECONDS = 900
"""How long nodes wait for one another."""


@dataclass(frozen=True)
class Place:
    """Where workers are started.

    Attributes:
        count: workers on this node.
        nodes: nodes of the run, and ``node_rank`` the number of this one.
        rendezvous: host and port on node 0; None for one node.
    """

    count: int
    nodes: int = 1
    node_rank: int = 0
    rendezvous: str | None = None


@dataclass(frozen=True)
class Failure:
    """How a worker ended.

    Attributes:
        code: its exit code, the negative number of a signal.
        facts: what it said of its error; None if it said nothing.
        when: seconds since the epoch.
        output: the end of what it printed, if that was not shown.
    """

    rank: int
    code: int
    facts: dict[str, Any] | None
    when: float
    output: str


def run_workers(command: Sequence[str], place: Place) -> Failure | None:
    """Run a command as so many workers until all have ended; the first one has this process's output.

    A request to stop is passed on: at the first one they save and stop, at the second they stop, the third kills them.

    Returns:
        the failure that ended them; None if all is well.

    Raises:
        AlignzooError: they could not be started, or the nodes did not find one another.
        KeyboardInterrupt: a request to stop came before they were started.
    """
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder, _quiet():
        result: list[Mapping[int, Any] | Exception] = []
        config, over = _config(place, folder), threading.Event()

        def work() -> None:  # beside the main thread, where the launcher would take the signals for itself
            try:
                result.append(_launch(config, command))
            finally:
                over.set()

        shown = os.isatty(2)

        def relay() -> None:  # a worker whose terminal is gone must know, or its next line would fail
            _signal(signal.SIGHUP if shown and not os.isatty(2) else signal.SIGINT)

        with stop_requests(relay) as stop:
            threading.Thread(target=work, daemon=True).start()
            _wait(over, stop)
            ignore_requests()  # it remains to say how they ended
        ended = result[0]
        if isinstance(ended, Exception):
            raise _explained(ended, place) from ended
        failures = [_failure(failure, place) for failure in ended.values()]
        cause = root_cause(failures, stopped=stop.is_set()) if failures else None
        if cause is not None and stop.is_set() and cause.facts is None:
            raise KeyboardInterrupt
        return cause


def root_cause(failures: Sequence[Failure], *, stopped: bool) -> Failure:
    """The failure that explains the others.

    What the launcher did to the rest (SIGTERM at once, SIGKILL later) is a consequence, and so is a lost connection.

    Args:
        stopped: the workers were asked to stop.
    """
    together = min(failure.when for failure in failures) + _TOGETHER

    def order(failure: Failure) -> tuple[int, float]:
        facts = failure.facts
        if facts is not None and facts["exit_code"] == INTERRUPTED:
            place = (0 if facts["hint"] else 1) if stopped else 5
        elif facts is not None:
            place = 4 if facts["kind"] == "InternalError" else 2
        else:
            killed = failure.code < 0 and -failure.code != signal.SIGTERM
            place = 3 if killed and failure.when <= together else 6
        return place, failure.when

    return min(failures, key=order)


def tell_parent(facts: Mapping[str, Any]) -> None:
    """Leave a worker's error for the process that started it, if that is still there."""
    now = time.time()
    content = {"message": str(facts["message"]), "timestamp": int(now), _FACTS: {**facts, "when": now}}
    with suppress(FileNotFoundError):
        Path(os.environ[_ERROR_FILE]).write_text(json.dumps(content), encoding="utf-8")


def stop_with_parent() -> None:
    """From here on, this worker is asked to stop (SIGTERM) if the process that started it is gone; what that left in
    the temporary folder is removed."""
    parent = os.getppid()
    left = [path for path in Path(os.environ[_ERROR_FILE]).parents if path.name.startswith(_FOLDER)]

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _config(place: Place, folder: str) -> LaunchConfig:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    several = place.nodes > 1
    return LaunchConfig(
        min_nodes=place.nodes,
        max_nodes=place.nodes,
        nproc_per_node=place.count,
        run_id="alignzoo",
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=place.rendezvous or "localhost:0",
        rdzv_configs={"timeout": _JOIN_SECONDS, **({"rank": place.node_rank} if several else {})},
        local_addr=None if several else "localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=dict.fromkeys(range(1, place.count), Std.ALL)),
    )


def _launch(config: LaunchConfig, command: Sequence[str]) -> Mapping[int, Any] | Exception:
    """The failures by rank, or what the launcher itself failed of."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        failures: Mapping[int, Any] = error.failures
        return failures
    except Exception as error:
        return error
    return {}


def _wait(over: threading.Event, stop: threading.Event) -> None:
    """Until it is over, pass on further requests to stop. (An interrupted ``Thread.join`` forgets its thread.)"""
    seen, again = False, 0
    while not over.is_set():
        try:
            over.wait(0.2)
            seen = seen or bool(_children())
            if stop.is_set() and not seen and not over.is_set():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            if not seen and not _children():
                raise
            again += 1
            _signal(signal.SIGINT if again == 1 else signal.SIGKILL)


def _children() -> list[Any]:
    import psutil  # type: ignore[import-untyped]

    return list(psutil.Process().children())


def _signal(number: signal.Signals) -> None:
    for child in _children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)


def _failure(failure: Any, place: Place) -> Failure:
    facts = failure.error_file_data.get(_FACTS)
    log = Path(failure.error_file).with_name("stderr.log")
    return Failure(
        rank=place.node_rank * place.count + failure.local_rank,
        code=failure.exitcode,
        facts=facts,
        when=facts["when"] if facts else failure.timestamp,
        output=log.read_text(encoding="utf-8", errors="replace")[-2000:].strip() if log.is_file() else "",
    )


def _explained(error: Exception, place: Place) -> AlignzooError:
    said = str(error).partition("\n")[0] or type(error).__name__
    if place.rendezvous is None:
        return AlignzooError(f"the workers could not be started: {said}", hint="check the network of this machine")
    return AlignzooError(
        f"the nodes did not meet at {place.rendezvous}: {said}",
        hint="node 0 must be reachable there, its port free, and --nodes and --rendezvous the same on all nodes",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The launcher logs what is reported here anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
