"""The environment: required packages, extras, plugins, devices, disks.

Reads the metadata of alignzoo's own distribution, so ``pyproject.toml`` stays the only list of requirements.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.files import local_path
from alignzoo.contract.card import Card, Extension
from alignzoo.errors import BrokenPluginError
from alignzoo.plugin.build import import_target
from alignzoo.plugin.plugin import Plugin

DISTRIBUTION = "alignzoo"

EXTRAS = {
    "gguf": ("--model FILE.gguf", ("gguf",)),
    "tensorboard": ("--track tensorboard", ("tensorboard", "tensorboardX")),
    "wandb": ("--track wandb", ("wandb",)),
    "trackio": ("--track trackio", ("trackio",)),
    "mlflow": ("--track mlflow", ("mlflow",)),
    "swanlab": ("--track swanlab", ("swanlab",)),
    "plots": ("plots of probe and sharpness", ("matplotlib",)),
    "bitsandbytes": ("--quantize 4bit, --optimizer adamw8bit (CUDA)", ("bitsandbytes",)),
}
"""Extra → what it is for, and the modules of which any one suffices."""


@dataclass(frozen=True)
class Package:
    """A required package; ``problem`` is empty if there is none."""

    name: str
    version: str | None
    minimum: str | None
    problem: str | None


@dataclass(frozen=True)
class Extra:
    """An optional package and what it is for."""

    name: str
    present: bool
    purpose: str


@dataclass(frozen=True)
class Device:
    """A device torch can train on."""

    name: str
    kind: str
    memory_gb: float | None
    bf16: bool | None


def required_packages() -> list[Package]:
    """The required packages, with versions."""
    unconditional = (line for line in importlib.metadata.requires(DISTRIBUTION) or () if ";" not in line)
    return [_package(line) for line in unconditional]


def _package(requirement: str) -> Package:
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    bound = re.search(r">=\s*([\d.]+)", requirement)
    minimum = bound[1] if bound else None
    wanted = f"{name}>={minimum}" if minimum else name
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Package(name, None, minimum, f"{name} is missing: pip install '{wanted}'")
    if minimum and _numbers(version) < _numbers(minimum):
        return Package(name, version, minimum, f"{name} {version} is too old: pip install -U '{wanted}'")
    return Package(name, version, minimum, None)


def _numbers(version: str) -> tuple[int, ...]:
    """The release part of a version; ``2.6`` and ``2.6.0`` are the same."""
    release = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in release[0].split(".")] if release else []
    return tuple(parts + [0] * (4 - len(parts)))


def extras() -> list[Extra]:
    """The optional packages, and whether each is installed."""
    return [
        Extra(name, any(importlib.util.find_spec(module) for module in modules), purpose)
        for name, (purpose, modules) in EXTRAS.items()
    ]


def target_problems(plugin: Plugin) -> list[str]:
    """Methods and extensions that are listed but whose code fails to import."""
    problems = []
    cards = [method for method in plugin.methods if isinstance(method, Card)]
    declared: list[Card | Extension] = [*cards, *plugin.extensions]
    for card in declared:
        try:
            import_target(card)
        except BrokenPluginError as error:
            problems.append(error.message)
    return problems


def devices() -> list[Device]:
    """The CPU and the accelerators that torch sees. Imports torch."""
    import torch

    found = [Device(f"{platform.machine()}, {torch.get_num_threads()} threads", "cpu", _memory_gb(), _cpu_bf16())]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            found.append(Device(facts.name, "cuda", facts.total_memory / 2**30, facts.major >= 8))
    if torch.backends.mps.is_available():
        found.append(Device("Apple GPU", "mps", torch.mps.recommended_max_memory() / 2**30, None))
    return found


def ranks() -> dict[str, Any]:
    """How many processes ``--devices auto`` starts, and how they can communicate. Imports torch."""
    import torch.distributed

    from alignzoo.cli.launch import device_count

    there = torch.distributed.is_available()
    backends = {"nccl": torch.distributed.is_nccl_available, "gloo": torch.distributed.is_gloo_available}
    return {
        "auto": device_count() or 1,
        "communication": [name for name, available in backends.items() if there and available()],
    }


def _memory_gb() -> float | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):  # not available on every system
        return None


def _cpu_bf16() -> bool | None:
    """Whether the CPU has native bf16 multiplication; None if the system does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").lower().split()
    except OSError:
        return None
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def cache_folder() -> Path:
    """The cache folder for hub models and tokenised data."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return local_path(home)


def free_gb(folder: Path) -> float:
    """Free space on the disk that holds, or would hold, a folder."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free / 2**30
