"""What a run costs beside its training, alone and in a sweep: ``python benchmarks/overhead.py --recipe world2``.

One process does the runs one after another on one thread, as a worker of a sweep does: two seeds by the losses given
with ``--loss``. The first run is a cold one (its own process's start-up is stated apart). Both clocks are given, since
CPU seconds still mean something on a machine that does other work too. Training is the sum of its steps.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
STAGES = ("plan", "prepare", "before", "steps", "beside steps", "after", "model and result")


class Clock:
    """Wall-clock and CPU seconds by stage; what a stage inside another takes is the inner one's alone."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self._inner = [[0.0, 0.0]]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter(), time.process_time()
        self._inner.append([0.0, 0.0])
        try:
            yield
        finally:
            inner, spent = self._inner.pop(), self.spent.setdefault(name, [0.0, 0.0])
            for i, now in enumerate((time.perf_counter(), time.process_time())):
                self._inner[-1][i] += now - began[i]
                spent[i] += now - began[i] - inner[i]

    def around(self, owner: Any, name: str, stage: str) -> None:
        """Count the calls of a method as a stage."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*words: Any, **more: Any) -> Any:
            with self.stage(stage):
                return method(*words, **more)

        setattr(owner, name, timed)


def main() -> None:
    """Do the runs, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="world2")
    parser.add_argument("--loss", nargs="+", default=["dpo", "simpo"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--alone", action="store_true", help="nothing is handed from one run to the next")
    parser.add_argument("--save", action="store_true", help="write models and checkpoints")
    words = parser.parse_args()
    clock = Clock()
    with clock.stage("imports"):
        import alignzoo.train.begin
        from alignzoo.plan.recipe import Layer, read_recipe
        from alignzoo.plan.resolve import require, resolve
        from alignzoo.report import Reporter
        from alignzoo.runs.course import Course
        from alignzoo.runs.execute import execute
        from alignzoo.runs.shared import Shared
        from alignzoo.train.loop import Loop
    assert alignzoo.train.begin
    print("imports: {:.2f} s, {:.2f} s of CPU".format(*clock.spent["imports"]), flush=True)
    around = ((Course, "prepare", "prepare"), (Course, "_before", "before"), (Loop, "run", "beside steps"))
    around += ((Loop, "_step", "steps"), (Course, "_figures", "after"))
    for owner, name, stage in around:
        clock.around(owner, name, stage)
    shared = Shared()
    ratios: dict[str, float] = {}
    print("".join(f"{name:>18s}" for name in ("run", *STAGES, "whole / steps")))
    with tempfile.TemporaryDirectory() as folder:
        for count, (loss, seed) in enumerate((loss, seed) for seed in range(words.seeds) for loss in words.loss):
            clock.spent = {}
            out = Path(folder, str(count))
            given: dict[str, Any] = {"loss": loss, "seed": seed, "out": str(out), "save-model": words.save}
            given |= {"max-steps": words.steps} if words.steps else {}
            with clock.stage("model and result"):
                with clock.stage("plan"):
                    plan = require(resolve([read_recipe(words.recipe), Layer("python", given)]))
                execute(plan, reporter=Reporter(), shared=None if words.alone else shared)
            lines = (out / "metrics.jsonl").read_text().splitlines()
            assert abs(sum(json.loads(line)["step_seconds"] for line in lines) - clock.spent["steps"][0]) < 1
            for which, kind in enumerate(("wall", "CPU")):
                spent = {name: clock.spent.get(name, [0.0, 0.0])[which] for name in STAGES}
                ratio = sum(spent.values()) / spent["steps"]
                name = f"{loss} {seed} {kind}"
                print(f"{name:>18s}" + "".join(f"{spent[s]:18.2f}" for s in STAGES) + f"{ratio:18.3f}", flush=True)
                ratios[kind] = ratio
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    stated = " and ".join(f"{ratio:.3f} ({kind})" for kind, ratio in ratios.items())
    print(f"the last run takes {stated} times its training; load average {loads}")


if __name__ == "__main__":
    main()
