"""How this process was launched, from the environment that ``alignzoo run --devices``, ``torchrun``, ``accelerate
launch`` or SLURM's ``srun`` set.

``--devices`` sets ``ALIGNZOO_WORLD`` before it starts its workers: the ranks that a run is going to have.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alignzoo.errors import IncompatibleError, UsageError

WORLD, SHARDED = "ALIGNZOO_WORLD", "ALIGNZOO_FSDP"
"""What the parent of workers tells them, and :func:`take_over_sharding` the rest of the program."""
_ASKED = "ACCELERATE_USE_FSDP"
_FIRST_PORT, _PORTS = 20000, 12000
"""Ports for SLURM steps, below those that systems hand out."""


def distributed_backend() -> str:
    """``none``, ``ddp``, ``fsdp`` (that is FSDP2), ``fsdp1`` or ``deepspeed``, as the resolver calls them."""
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        return "deepspeed"
    if _is_on(_ASKED) and os.environ.get("FSDP_VERSION") != "2":
        return "fsdp1"
    if world_size() == 1:
        return "none"
    return "fsdp" if shards_asked() else "ddp"


def shards_asked() -> bool:
    """Whether several ranks would shard the weights (FSDP2)."""
    return _is_on(_ASKED) or _is_on(SHARDED)


def world_size() -> int:
    """Ranks of this run, over all nodes; in the parent of workers, those that it will start."""
    return int(_said("WORLD_SIZE") or os.environ.get(WORLD) or 1)


def local_world_size() -> int | None:
    """Ranks on this node; None if the launcher does not say."""
    return int(_said("LOCAL_WORLD_SIZE") or 0) or None


def node_count() -> int:
    """Nodes of this run, as far as the launcher says: ranks over ranks on this node."""
    return world_size() // (local_world_size() or world_size()) or 1


def is_first_rank() -> bool:
    """Whether this is the process that prints and writes."""
    return int(_said("RANK") or _said("LOCAL_RANK") or 0) == 0


def is_worker() -> bool:
    """Whether ``alignzoo run --devices`` started this process as one of several."""
    return WORLD in os.environ and "TORCHELASTIC_RUN_ID" in os.environ


def launcher() -> str | None:
    """What the user started this process with as one of several ranks; None if it was started alone, or by us."""
    if WORLD in os.environ:
        return None
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 or "LOCAL_RANK" in os.environ:
        accelerated = any(name.startswith("ACCELERATE_") for name in os.environ)
        return (
            "accelerate launch" if accelerated else "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "a launcher"
        )
    return "srun" if _slurm() else None


def lone_of_several() -> bool:
    """Whether ``accelerate launch`` was asked for several processes on CPUs: it leaves them to ``mpirun``, and without
    one it starts a single process, which it does not number."""
    return _is_on("ACCELERATE_USE_CPU") and "MASTER_PORT" in os.environ and _said("WORLD_SIZE") is None


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Inside, the environment has these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def planned(world: int | None, *, sharded: bool) -> Iterator[None]:
    """Inside, this process and those that it starts see a launch of so many ranks; None leaves their number alone."""
    ranks = {} if world is None else {WORLD: str(world)}
    with variables(ranks | ({SHARDED: "true"} if sharded else {})):
        yield


def check_shares(batch_size: int, world: int) -> None:
    """Every rank takes the same number of pairs.

    Raises:
        UsageError: the batch cannot be divided over the ranks.
    """
    if batch_size % world:
        raise UsageError(
            f"--batch-size {batch_size} cannot be divided over {world} ranks", hint=f"use a multiple of {world}"
        )


def adopt_slurm() -> None:
    """Under ``srun`` with several tasks, set what torch and accelerate read from torchrun's environment."""
    for name, value in _slurm().items():
        os.environ.setdefault(name, value)


def take_over_sharding() -> None:
    """From here on, FSDP2 requested by ``accelerate launch`` is handled by :mod:`alignzoo.distributed.sharding`.

    Otherwise accelerate would wrap models in its own way, and transformers would load weights on one rank only.

    Raises:
        IncompatibleError: the launch requests an FSDP feature that has a flag here.
    """
    if not _is_on(_ASKED):
        return
    for variable, what, key, flag in (
        ("FSDP_OFFLOAD_PARAMS", "parameter offloading", "fsdp_offload_params", "--offload weights"),
        (
            "FSDP_ACTIVATION_CHECKPOINTING",
            "activation checkpointing",
            "fsdp_activation_checkpointing",
            "--activation-checkpointing",
        ),
    ):
        if _is_on(variable):
            raise IncompatibleError(
                f"this launch requests {what} ({key}), which has a flag here",
                hint=f"switch it off in accelerate's configuration, and use {flag}",
            )
    os.environ[SHARDED] = os.environ.pop(_ASKED)


def reshards_after_forward() -> bool:
    """Whether a layer's gathered weights are freed between forward and backward: accelerate's setting, default on."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1", "yes")


def _said(variable: str) -> str | None:
    """A variable of torchrun's, or what SLURM says instead."""
    return os.environ.get(variable) or _slurm().get(variable)


def _slurm() -> dict[str, str]:
    """torchrun's variables from those of a job step with several tasks; empty for everything else.

    A batch script has variables of tasks, too, but is not one of them: only ``srun`` starts a step.
    """
    slurm = os.environ
    tasks = slurm.get("SLURM_STEP_NUM_TASKS") or (slurm.get("SLURM_NTASKS") if "SLURM_STEP_ID" in slurm else None)
    if int(tasks or 1) == 1 or "WORLD_SIZE" in slurm or WORLD in slurm or "SLURM_PROCID" not in slurm:
        return {}
    job, step = (int(slurm.get(name) or 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    one_device_each = bool(re.fullmatch(r"[^,]+", slurm.get("CUDA_VISIBLE_DEVICES", "")))
    found = {
        "RANK": slurm["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": "0" if one_device_each else slurm.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": _first_host(slurm),
        "MASTER_PORT": str(_FIRST_PORT + (7 * job + step) % _PORTS),
    }
    here = re.match(r"\d+", slurm.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return found | ({"LOCAL_WORLD_SIZE": here[0]} if here else {})


def _first_host(slurm: Mapping[str, str]) -> str:
    """The first host of a list such as ``gpu[03-04,9],other``."""
    hosts = slurm.get("SLURM_STEP_NODELIST") or slurm.get("SLURM_NODELIST") or "localhost"
    first = re.match(r"(?:[^,\[]|\[[^]]*])+", hosts)
    return re.sub(r"\[([^],-]+)[^]]*]", r"\1", first[0] if first else hosts)
