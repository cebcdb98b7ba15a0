"""Where the time of a packed step of the 1B shape goes: a profile, host syncs, and controllers beside plain steps."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shapes import ROOT, SHAPES, Figures, device_of, product_rate, random_model, settle
from steps import job_of

WARM = 3
CONTROLLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "shapo-token": ("shapo-token", {"interval": 5, "select": "random"}),
    "sam": ("sam", {"interval": 1}),
}
"""By name: the method and its options."""
TURN = 5
"""Steps of a controller in a row: one perturbed step of ShaPO."""


@contextlib.contextmanager
def loop_on(device: str, name: str, steps: int, observer: Any = None) -> Iterator[Any]:
    """A run's loop over the 1B shape, ready for its first step; ``name`` as in :mod:`steps`."""
    from steps_alignzoo import loop_of

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ALIGNZOO_CACHE"] = f"{scratch}/cache"
        job, _ = job_of("1b", name, device, Path(scratch), steps)
        yield loop_of(job, observer, random_model(SHAPES["tiny" if device == "cpu" else "1b"], device))


def profile(*, cpu: bool) -> Figures:
    """One step of packed rows under torch.profiler, its operations by time in ``profile.txt``; the places where another
    step waits for the GPU; and the rate of a large bf16 product on this card."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity

    from alignzoo.observers import RunObserver

    device = device_of(cpu)
    activities = [ProfilerActivity.CPU] if cpu else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    profiler = torch.profiler.profile(activities=activities)
    syncs: Counter[str] = Counter()
    waits = counted_syncs(syncs)
    ends: list[float] = []

    class Watch(RunObserver):
        def on_step_end(self, step: int, metrics: Mapping[str, Any]) -> None:
            settle(device)
            ends.append(time.perf_counter())
            if step == WARM:
                waits.__enter__()
            elif step == WARM + 1:
                waits.__exit__(None, None, None)
                profiler.start()
            elif step == WARM + 2:
                profiler.stop()

    with loop_on(device, "rows", WARM + 1, Watch()) as loop:
        loop.run()
    events = profiler.key_averages()
    column = "self_cpu_time_total" if cpu else "self_device_time_total"
    folder = Path(os.environ.get("OUT") or ROOT / "build" / "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.txt").write_text(events.table(sort_by=column, row_limit=60, max_name_column_width=90))
    ran = [e for e in events if (e.device_type == DeviceType.CPU) == cpu and not e.is_user_annotation]
    busy = sum(getattr(event, column) for event in ran) / 1e6
    top = sorted(ran, key=lambda event: -getattr(event, column))[:12]
    rate = product_rate(device, 512 if cpu else 8192)
    seconds = ends[WARM - 1] - ends[WARM - 2]  # of a step that nothing slows down
    return {
        "seconds": seconds,
        "kernels": busy,
        "top": {event.key[:120]: getattr(event, column) / 1e6 for event in top},
        "syncs": dict(syncs),
        "product": rate,
        "shown": f"kernels take {busy:.3f} s of a step of {seconds:.3f} s, {sum(syncs.values())} host syncs a step, "
        f"large bf16 product {rate / 1e12:.0f} TFLOP/s; profile.txt",
    }


@contextlib.contextmanager
def counted_syncs(places: Counter[str]) -> Iterator[None]:
    """Count the operations that wait for the GPU, by file and line; without a GPU there are none."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_initialized():
            torch.cuda.set_sync_debug_mode("warn")
        yield
        if torch.cuda.is_initialized():
            torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchroniz" in str(warning.message):
            places[f"{'/'.join(Path(warning.filename).parts[-3:])}:{warning.lineno}"] += 1


def geometry(*, cpu: bool) -> Figures:
    """Whole steps of the 1B shape under controllers that take turns in one process, as ratios to the plain step."""
    from alignzoo import load_method
    from alignzoo.report import Reporter
    from alignzoo.step.context import StepContext
    from alignzoo.step.setup import SetupContext

    device, rounds = device_of(cpu), 2 if cpu else 4
    with loop_on(device, "dialogues", 0) as loop:
        loop.engine.model.train()
        made = loop.batches(0)
        batches, references = [batch.to(device) for batch in made], [loop.reference(batch) for batch in made]
        policy = loop.engine.accelerator.unwrap_model(loop.engine.model)

        def controller_of(name: str) -> Any:
            method, options = CONTROLLERS[name]
            made = load_method("geometry", method, **options)
            made.setup(SetupContext(policy, 0, Reporter(), lambda given: None))
            return made

        def turn(controller: Any) -> Callable[[], None]:
            def steps() -> None:
                for step in range(TURN):
                    controller.step(StepContext(loop.engine, batches, references, step))
                    loop.optimizer.step()
                    loop.optimizer.zero_grad(set_to_none=True)

            return steps

        turns = {name: turn(controller_of(name)) for name in CONTROLLERS}
        times, peaks = taken_in_turns(turns, rounds, device)
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds, times["plain"], strict=True))
        for name, seconds in times.items()
    }
    shown = ", ".join(f"{name} {ratio:.2f}× plain" for name, ratio in ratios.items() if name != "plain")
    step = statistics.median(times["plain"]) / TURN
    return {"seconds": times, "ratios": ratios, "peaks": peaks, "shown": f"{shown}; plain {step:.3f} s a step"}


def taken_in_turns(
    turns: Mapping[str, Callable[[], None]], rounds: int, device: str
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each turn by round, after one round to warm up; and on a GPU the bytes held at most."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in turns}
    peaks: dict[str, int] = {}
    for round_ in range(rounds + 1):
        for name, steps in turns.items():
            settle(device)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            steps()
            settle(device)
            if round_:
                times[name].append(time.perf_counter() - began)
            if device == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated()
    return times, peaks
