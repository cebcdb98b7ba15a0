"""The workers of a sweep: as many as wanted at work until no run is left, whatever happens to one of them."""

from __future__ import annotations

import shlex
import sys
import threading
from collections import Counter
from collections.abc import Sequence

from alignzoo.errors import AlignzooError
from alignzoo.plugin.sources import sources
from alignzoo.records.sweep import LOGS_FOLDER, SweepRecord
from alignzoo.report import Reporter
from alignzoo.sweeps.folder import claims_of_the_dead, to_do, write_failure
from alignzoo.sweeps.launchers import Launcher, Worker
from alignzoo.sweeps.progress import SweepProgress
from alignzoo.sweeps.worker import STOPPED

MOST_DEATHS = 2
"""Workers that may die at one run before it counts as failed."""
_TICK = 0.25
"""Seconds between looks at the folder."""


class Crew:
    """The workers of one sweep.

    Args:
        count: how many work side by side.
        words: command-line words of each worker besides the folder.
    """

    def __init__(
        self, sweep: SweepRecord, launcher: Launcher, count: int, reporter: Reporter, words: Sequence[str] = ()
    ) -> None:
        self._sweep, self._launcher, self._count, self._reporter = sweep, launcher, count, reporter
        self._command = [sys.executable, "-m", "alignzoo.sweeps.worker", str(sweep.folder.absolute()), *words]
        self._log = sweep.folder.absolute() / LOGS_FOLDER / "workers.log"
        self._workers: dict[int, Worker] = {}
        self._deaths: Counter[str] = Counter()
        self._idle_deaths = 0

    def work(self, stop: threading.Event) -> None:
        """Run all cells that are to do; return when none is left, or when all workers have stopped as asked.

        Raises:
            AlignzooError: workers end before they take up a run.
        """
        claims_of_the_dead(self._sweep)
        asked = False
        with SweepProgress(self._sweep, self._reporter) as progress:
            while True:
                progress.update()
                self._collect(asked)
                if stop.is_set() and not asked:
                    asked = True
                    for worker in self._workers.values():
                        worker.stop()
                if not asked:
                    self._fill()
                if not self._workers:
                    progress.update()
                    return
                stop.wait(_TICK) if not asked else threading.Event().wait(_TICK)

    def _fill(self) -> None:
        """Start workers for what nobody is at work on."""
        waiting = sum(1 for _ in to_do(self._sweep))
        for number in range(min(self._count, len(self._workers) + waiting)):
            if number not in self._workers and waiting:
                self._workers[number] = self._launcher.start(self._command, self._log, number, self._count)

    def _collect(self, asked: bool) -> None:
        """Look after workers that have ended, and after the runs of those that were killed."""
        ended = {number: code for number, worker in self._workers.items() if (code := worker.ended()) is not None}
        for number in ended:
            del self._workers[number]
        codes = [code for code in ended.values() if code not in (0, STOPPED)]
        if not codes:
            return
        left = claims_of_the_dead(self._sweep)
        for cell in left:
            self._deaths[cell.name] += 1
            fate = "resuming it"
            if self._deaths[cell.name] >= MOST_DEATHS:
                fate = "giving it up"
                hint = f"the system may be out of memory: fewer --workers; {self._sweep.log(cell)} has its last words"
                write_failure(self._sweep, cell, f"its process died {MOST_DEATHS} times ({_ending(codes)})", hint, 1)
            if not asked:
                self._reporter.warn(f"the process of {cell.label} seed {cell.seed} {_ending(codes)}; {fate}")
        self._idle_deaths = 0 if left else self._idle_deaths + len(codes)
        if self._idle_deaths > MOST_DEATHS and not asked:
            raise AlignzooError(
                f"workers end before they take up a run ({_ending(codes)})", hint=f"{self._log} has what they said"
            )


def _ending(codes: Sequence[int]) -> str:
    [first, *_] = codes
    return f"was killed by signal {-first}" if first < 0 else f"ended with code {first}"


def worker_words(*, trust_remote_code: bool) -> list[str]:
    """Words that give a worker the plugins of this process and its trust in code."""
    now = sources()
    words = [word for file in now.files for word in ("--plugin", str(file.resolve()))]
    words += [] if now.third_party else ["--no-plugins"]
    return [*words, "--trust-remote-code"] if trust_remote_code else words


def resume_command(sweep: SweepRecord, *, trust_remote_code: bool) -> str:
    """The command that continues a sweep."""
    words = worker_words(trust_remote_code=trust_remote_code)
    return shlex.join(["alignzoo", "sweep", "--resume", str(sweep.folder), *words])
