"""``env.json``: which versions, plugins and machine a run saw."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import sys
from typing import Any

import torch

from alignzoo.distributed.launch import distributed_backend, node_count
from alignzoo.plugin.registry import registry
from alignzoo.version import __version__

LIBRARIES = ("torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "safetensors", "pydantic")


def describe_environment(world: int, device: str) -> dict[str, Any]:
    """Versions, plugins and machine, JSON-able."""
    return {
        "alignzoo": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "plugins": [{**plugin.to_dict(), "hash": plugin.fingerprint()} for plugin in registry().plugins],
        "device": device,
        "ranks": world,
        "nodes": node_count(),
        "backend": distributed_backend(),
        "communication": torch.distributed.get_backend() if torch.distributed.is_initialized() else None,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
