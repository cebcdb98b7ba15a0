"""A weighted sum of the weights of several models with one architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.base.files import whole, write_json
from alignzoo.errors import ModelError


def merge(weights: Mapping[Path, float], folder: Path) -> None:
    """Write ``folder/model``: Σ weight · model, computed in fp32. Adapters are merged into their base models first.

    Raises:
        ModelError: the models have other weights or shapes.
    """
    import torch

    from alignzoo.model.load import load_tokenizer
    from alignzoo.model.source import find_model
    from alignzoo.model.weights import save_model
    from alignzoo.plan.settings import Settings

    total: dict[str, torch.Tensor] = {}
    model: Any = None
    for path, weight in weights.items():
        model = full_model(path)
        state = model.state_dict()
        if total and {name: tensor.shape for name, tensor in total.items()} != {n: t.shape for n, t in state.items()}:
            raise ModelError(
                f"{path} and {next(iter(weights))} cannot be merged: their weights differ in names or shapes",
                hint="merge models with the same architecture and vocabulary",
            )
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                total.setdefault(name, tensor)
            elif name in total:
                total[name] += weight * tensor
            else:
                total[name] = weight * tensor
    model.load_state_dict(total)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(find_model(str(next(iter(weights)))), Settings())
    write_json(folder / "merge.json", {str(path): weight for path, weight in weights.items()})
    with whole(folder / "model") as target:
        save_model(model, tokenizer, target, model.state_dict())


def full_model(path: Path) -> Any:
    """The model of a folder in fp32, with its adapter merged into it if it has one."""
    from alignzoo.model.load import load_policy
    from alignzoo.model.source import find_model
    from alignzoo.plan.settings import Settings

    policy: Any = load_policy(find_model(str(path)), Settings())
    if not hasattr(policy, "peft_config"):
        return policy
    policy.set_adapter("default")
    return policy.merge_and_unload(adapter_names=["default"])
