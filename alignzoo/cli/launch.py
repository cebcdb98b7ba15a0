"""``alignzoo run --devices``: how many processes a run has. Words of the command, not of the plan.

A resumed run may have other ones.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from alignzoo.distributed import launch
from alignzoo.distributed.workers import Failure, Place, run_workers
from alignzoo.errors import AlignzooError, UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

AUTO = "auto"
_LOST = re.compile(r"connection (?:was )?(?:closed|reset|aborted|refused)|remote process exited|broken pipe", re.I)
_WORDS = ("devices", "nodes", "node_rank", "rendezvous", "parallel")


class WorkerError(Exception):
    """The error of a worker, as it would have reported it itself.

    Attributes:
        facts: ``message``, ``hint``, ``exit_code``, ``kind`` and ``traceback``.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts["message"])
        self.facts = {name: facts[name] for name in ("message", "hint", "exit_code", "kind", "traceback")}


class LaunchOption(click.Option):
    """An option of its own section of the help."""

    group = "Launch"


@dataclass(frozen=True)
class Launch:
    """The ranks of a run.

    Attributes:
        place: the workers to start; None for a run in this process.
        sharded: several ranks share the weights (FSDP2).
        words: what was typed, to be typed again on a resume.
        note: to tell the user before the run.
    """

    place: Place | None = None
    sharded: bool = False
    words: str = ""
    note: str | None = None

    @property
    def world(self) -> int:
        """Ranks over all nodes that this process starts."""
        return self.place.count * self.place.nodes if self.place else 1

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Inside, the resolver and started processes see this launch."""
        if self.place is None and not self.sharded:
            yield
            return
        with launch.planned(self.world if self.place else None, sharded=self.sharded):
            yield

    def start(self, ctx: click.Context, folder: Path | None) -> None:
        """Run the same command in the workers, in whose place this process reports.

        Args:
            folder: of the run, if it is known here.

        Raises:
            WorkerError: what a worker said.
            AlignzooError: a worker was killed, or they could not be started.
        """
        assert self.place is not None
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, _cpus() // self.place.count))
        with launch.variables({"OMP_NUM_THREADS": threads}):
            failure = run_workers([*_program(), *ctx.find_root().obj], self.place)
        if failure is not None:
            raise self._error(failure, folder)

    def _error(self, failure: Failure, folder: Path | None) -> Exception:
        facts = dict(failure.facts or {})
        if facts and not (facts["kind"] == "InternalError" and _LOST.search(facts["message"])):
            if "alignzoo run --resume " in (facts["hint"] or ""):
                facts["hint"] += self.words
            return WorkerError(facts)
        if facts:
            return AlignzooError(
                f"rank {failure.rank} lost the connection to another rank: {facts['message']}",
                hint=f"see what the other nodes report; {self._again(folder)}",
            )
        said = f"; it printed:\n{failure.output}" if failure.output else ""
        if failure.code >= 0:
            return AlignzooError(
                f"rank {failure.rank} ended with exit code {failure.code}{said}", hint=self._again(folder)
            )
        name = signal.Signals(-failure.code).name
        memory = "the system kills processes when memory runs out; " if name == "SIGKILL" else ""
        return AlignzooError(f"rank {failure.rank} was killed by {name}{said}", hint=f"{memory}{self._again(folder)}")

    def _again(self, folder: Path | None) -> str:
        from alignzoo.plan.planfile import PLAN_FILE
        from alignzoo.plugin.registry import resume_words

        if folder is None or not (folder / PLAN_FILE).is_file():
            return "resume with --resume and the run folder, if training had begun"
        return f"resume with: {resume_words(folder, trusting=False)}{self.words}"


def launch_options(function: Function) -> Function:
    """Adds the words of a launch, as arguments of the same names."""
    options: dict[str, dict[str, Any]] = {
        "--devices": {
            "metavar": "N|auto",
            "help": "processes on this machine, each on a device of its own (without a GPU, on the CPU); auto: one for"
            " each GPU [default: 1]",
        },
        "--parallel": {
            "type": click.Choice(["ddp", "fsdp2"]),
            "help": "each process keeps all weights, or a shard of them [default: ddp]",
        },
        "--nodes": {
            "type": click.IntRange(min=1),
            "metavar": "N",
            "help": "machines, on each of which the same command is started [default: 1]",
        },
        "--node-rank": {"type": click.IntRange(min=0), "metavar": "R", "help": "number of this machine, from 0"},
        "--rendezvous": {"metavar": "HOST:PORT", "help": "address of machine 0 and a free port there"},
    }
    decorated: Any = function
    made = [LaunchOption([name], default=None, **facts) for name, facts in options.items()]
    decorated.__click_params__ = [*getattr(decorated, "__click_params__", []), *reversed(made)]
    return function


def launch_of(ctx: click.Context) -> Launch:
    """The launch that a command line asks for, in an environment that may have one already.

    Raises:
        UsageError: it contradicts itself, the user's own launcher or the devices that are there.
    """
    given = {name: ctx.params[name] for name in _WORDS if ctx.params[name] is not None}
    if launch.is_worker():
        return Launch()  # all is in the environment
    if launch.lone_of_several():
        raise UsageError(
            "accelerate launch starts several processes on CPUs through mpirun only, which alignzoo does not read",
            hint="use alignzoo run --devices N, or torchrun --nproc_per_node N -m alignzoo run",
        )
    own = launch.launcher()
    if own is not None:
        return _within(own, given)
    place = _place(given, check=not ctx.params["dry_run"])
    if place is None and "parallel" in given and given.get("devices") != AUTO:
        raise UsageError(
            f"--parallel {given['parallel']} has no effect on one device", hint="add --devices N or --devices auto"
        )
    if place is None:
        asked = given.get("parallel") == "fsdp2"
        return Launch(note="there is one device, so the weights are not sharded (--parallel fsdp2)" if asked else None)
    words = "".join(f" --{name.replace('_', '-')} {value}" for name, value in given.items())
    return Launch(place, _sharded(given), words)


def _within(own: str, given: Mapping[str, Any]) -> Launch:
    """The launch of a user's own launcher: nothing is started, and the words may only agree."""
    for name in ("node_rank", "rendezvous"):
        if name in given:
            raise UsageError(
                f"--{name.replace('_', '-')} is for processes that alignzoo starts, but {own} has started this one",
                hint="leave it out",
            )
    here = launch.local_world_size() or launch.world_size()
    devices = given.get("devices")
    if devices not in (None, AUTO) and _number(devices) != here:
        raise UsageError(
            f"--devices {devices}: {own} has started {here} {'process' if here == 1 else 'processes'} on this machine",
            hint=f"leave --devices out, or run alignzoo without {own}",
        )
    if given.get("nodes", launch.node_count()) != launch.node_count():
        raise UsageError(f"--nodes {given['nodes']}: {own} has started {launch.node_count()}", hint="leave --nodes out")
    sharded = _sharded(given)
    if "parallel" in given and launch.world_size() == 1:
        raise UsageError(f"--parallel {given['parallel']} has no effect in one process", hint="leave it out")
    return Launch(None, sharded and "parallel" in given)


def _sharded(given: Mapping[str, Any]) -> bool:
    if given.get("parallel") == "ddp" and launch.shards_asked():
        raise UsageError(
            "--parallel ddp: the environment requests FSDP (ACCELERATE_USE_FSDP)",
            hint="leave --parallel out, or choose another configuration of accelerate",
        )
    return given.get("parallel") == "fsdp2" or launch.shards_asked()


def _place(given: Mapping[str, Any], *, check: bool) -> Place | None:
    """The workers to start here; None for one process."""
    nodes = given.get("nodes", 1)
    extra = [f"--{name.replace('_', '-')}" for name in ("node_rank", "rendezvous") if name in given]
    if nodes == 1 and extra:
        raise UsageError(f"{' and '.join(extra)} without --nodes has no effect", hint="add --nodes N, or leave it out")
    if nodes > 1:
        _check_nodes(nodes, given)
    count = _devices(given.get("devices", AUTO if nodes > 1 else "1"), check=check)
    if count * nodes == 1:
        return None
    return Place(count, nodes, given.get("node_rank", 0), given.get("rendezvous"))


def _check_nodes(nodes: int, given: Mapping[str, Any]) -> None:
    rank, address = given.get("node_rank"), given.get("rendezvous")
    if rank is None or address is None:
        raise UsageError(
            f"--nodes {nodes} needs --node-rank and --rendezvous",
            hint=f"on each machine: --node-rank 0 to {nodes - 1}, and --rendezvous HOST:PORT of machine 0",
        )
    if rank >= nodes:
        raise UsageError(f"--node-rank {rank}: there are {nodes} nodes", hint=f"use 0 to {nodes - 1}")
    if not re.fullmatch(r"(?:[^\s:\[\]]+|\[[0-9A-Fa-f:]+\]):[1-9]\d{0,4}", address):
        raise UsageError(f"--rendezvous {address}: expected HOST:PORT", hint="such as 10.0.0.1:29500")


def _devices(asked: str, *, check: bool) -> int:
    if asked == AUTO:
        return device_count() or 1
    count = _number(asked)
    if check and count > 1:
        there = device_count()
        if 0 < there < count:
            raise UsageError(
                f"--devices {count}: this machine has {there} {'device' if there == 1 else 'devices'}",
                hint=f"use --devices {there} or auto; CUDA_VISIBLE_DEVICES limits what is seen",
            )
    return count


def _number(asked: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", asked):
        raise UsageError(f"--devices {asked}: expected a number from 1, or auto", hint="such as --devices 2")
    return int(asked)


def device_count() -> int:
    """Accelerators that torch sees; 0 if there is the CPU only."""
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _program() -> list[str]:
    """What was started, as a command without its words."""
    script = Path(sys.argv[0])
    return [sys.executable, *([str(script)] if script.name == "alignzoo" and script.is_file() else ["-m", "alignzoo"])]
