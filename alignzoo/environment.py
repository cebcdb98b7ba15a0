"""``env.json``: which versions, plugins and machine a run saw."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

import torch

from alignzoo import __version__
from alignzoo.plugin.registry import registry

LIBRARIES = ("torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "safetensors", "pydantic")


def describe_environment(world: int, device: str) -> dict[str, Any]:
    """Versions, plugins and machine, JSON-able."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "alignzoo": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
        "plugins": [{**plugin.to_dict(), "hash": plugin.fingerprint()} for plugin in registry().plugins],
        "device": device,
        "ranks": world,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
