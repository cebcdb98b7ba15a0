"""The devices that ``alignzoo plan`` is asked about: options, and the hardware they mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from alignzoo.errors import UsageError
from alignzoo_estimate.cards import CARDS, GB, GIB, TERA
from alignzoo_estimate.hardware import Hardware

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SHARDINGS = {"none": "none", "ddp": "ddp", "fsdp2": "fsdp", "fsdp": "fsdp"}
"""Words of --sharding, and what the resolver calls them."""
_ABOVE_0 = click.FloatRange(min=0, min_open=True)
_COUNT = click.IntRange(min=1)
_OPTIONS = (
    click.option("--gpu", type=click.Choice(sorted(CARDS)), help="kind of GPU: its memory, throughput and links"),
    click.option("--gpus", type=_COUNT, metavar="N", help="GPUs of each node [default: none, a run on this CPU]"),
    click.option("--nodes", type=_COUNT, metavar="N", help="nodes, each with so many GPUs [default: 1]"),
    click.option(
        "--gpu-memory",
        type=_ABOVE_0,
        metavar="GIB",
        help="memory of each GPU (of one GPU without --gpus), if not --gpu's",
    ),
    click.option(
        "--gpu-flops",
        type=_ABOVE_0,
        metavar="TFLOPS",
        help="peak throughput of each GPU in the run's precision, if not --gpu's",
    ),
    click.option(
        "--link-bandwidth",
        type=_ABOVE_0,
        metavar="GB/S",
        help="from each GPU to the others of its node, one way, if not --gpu's",
    ),
    click.option(
        "--network-bandwidth",
        type=_ABOVE_0,
        metavar="GB/S",
        help="from each GPU to other nodes, one way, if not --gpu's",
    ),
    click.option(
        "--sharding",
        type=click.Choice(list(_SHARDINGS)),
        help="how GPUs share the work, as --parallel of a run (fsdp: fsdp2) [default: ddp with several, else none]",
    ),
)


def gpu_options(command: _Function) -> _Function:
    """The options that describe GPUs."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def on_gpus(words: dict[str, Any]) -> bool:
    """Whether the plan is for GPUs rather than this CPU."""
    return any(words[name] is not None for name in ("gpus", "gpu_memory", "gpu"))


def sharding_of(words: dict[str, Any]) -> str:
    """The sharding in the resolver's words.

    Raises:
        UsageError: it does not go with the number of GPUs.
    """
    if words["nodes"] is not None and words["gpus"] is None:
        raise UsageError("--nodes needs the number of GPUs of each node", hint="add --gpus 8")
    gpus, sharding = (words["gpus"] or 1) * (words["nodes"] or 1), words["sharding"]
    if sharding is None:
        return "ddp" if gpus > 1 else "none"
    if sharding == "none" and gpus > 1:
        raise UsageError(f"--sharding none cannot be combined with {gpus} GPUs", hint="use ddp or fsdp2")
    if sharding != "none" and gpus == 1:
        raise UsageError(f"--sharding {sharding} has no effect on one device", hint="set --gpus, or leave it out")
    return _SHARDINGS[sharding]


def hardware_of(words: dict[str, Any], sharding: Any, bf16: bool) -> Hardware:
    """The hardware; of the options, those that were given, and otherwise the card's.

    Raises:
        UsageError: an option has no effect.
    """
    if not on_gpus(words):
        return _this_cpu(words, bf16)
    nodes, card = words["nodes"] or 1, CARDS[words["gpu"]] if words["gpu"] else None
    devices = (words["gpus"] or 1) * nodes
    if devices == 1 and words["link_bandwidth"] is not None:
        raise UsageError("--link-bandwidth has no effect on one GPU", hint="set --gpus, or leave it out")
    if nodes == 1 and words["network_bandwidth"] is not None:
        raise UsageError("--network-bandwidth has no effect on one node", hint="set --nodes, or leave it out")
    return Hardware(
        devices,
        True,
        _stated(words["gpu_memory"], GIB, card.memory if card else None),
        _stated(words["gpu_flops"], TERA, card.rate(bf16=bf16) if card else None),
        sharding,
        nodes,
        _stated(words["link_bandwidth"], GB, card.link if card else None),
        _stated(words["network_bandwidth"], GB, card.network if card else None),
        card.host if card else None,
    )


def _stated(value: float | None, unit: float, usual: float | None) -> float | None:
    return usual if value is None else value * unit


def _this_cpu(words: dict[str, Any], bf16: bool) -> Hardware:
    from alignzoo_estimate.compute import measured_rate

    for name in ("gpu_flops", "link_bandwidth", "network_bandwidth"):
        if words[name] is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} has no effect without --gpus", hint="add --gpus 1, or --measure for this CPU")
    own = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware(1, False, float(own), measured_rate(bf16=bf16) if words["measure"] else None, "none")
