"""What is done in the process that has the other device; see :mod:`elsewhere`. All that comes back is of numpy."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from elsewhere import NAME
from matrix import ROWS, Combination, Matrix

import alignzoo
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.logps import Forward, packed_logps, padded_logps
from alignzoo.logprobs.offloading import Offloading
from alignzoo.plan.plan import Plan
from alignzoo.testing.tiny import batch_of, random_rows, tiny_model

Arrays = dict[str, np.ndarray]


class _Elsewhere(Matrix):
    @cached_property
    def model(self) -> Any:
        return Matrix.model.func(self).to(NAME)


@cache
def _matrix() -> Matrix:
    return _Elsewhere(Path(tempfile.mkdtemp()))


def trained(combination: Combination) -> Arrays:
    """The weights after two steps of the combination on the other device."""
    return weights_of(_matrix(), combination)


def weights_of(matrix: Matrix, combination: Combination) -> Arrays:
    """The weights after two steps of two micro-batches each."""
    plan = matrix.plan(combination)
    assert isinstance(plan, Plan), plan
    return {name: weight.cpu().numpy() for name, weight in matrix.train(plan, ROWS // 2, combination).items()}


def losses(words: Mapping[str, Any], folder: Path) -> list[float]:
    """The losses of a run, as its folder has them."""
    alignzoo.run({**words, "out": str(folder)})
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def command(words: Sequence[str]) -> int:
    """The exit code of ``alignzoo WORDS``."""
    from alignzoo.cli.main import main

    sys.argv = ["alignzoo", *words]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


WAYS: dict[str, Callable[..., Any]] = {"packed": packed_logps, "padded": padded_logps}


def gradients(way: str, device: str = NAME, *, autocast: bool = False, offloaded: bool = False) -> Arrays:
    """Log-probs and the gradients of their sum, of rows with one to three responses."""
    forward: Forward = WAYS[way]
    model = tiny_model(dtype=torch.float32).to(device)
    if way == "packed":
        use_packing(model)
    batch = batch_of(random_rows([2, 3, 1], seed=1), shape="ranked").to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=autocast):
        if offloaded:
            with Offloading(model, smallest=1):
                logps = forward(model, batch).logps
        else:
            logps = forward(model, batch).logps
    logps.sum().backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    return {name: value.detach().cpu().numpy() for name, value in {"logps": logps, **found}.items()}


def masks(device: str = NAME) -> Arrays:
    """What the masks of a pack say of each pair of its positions."""
    pack = batch_of(random_rows([2, 3, 1], seed=1), shape="ranked").to(device).pack
    assert pack is not None
    size = pack.input_ids.shape[1]
    at = torch.arange(size, device=device)
    found = {}
    for window in (None, 3):
        block = pack.block_mask(window)
        found[f"blocks {window}"] = block.mask_mod(at.new_zeros(1), at.new_zeros(1), at[:, None], at[None, :])
        found[f"counts {window}"] = block.kv_num_blocks
        found[f"whole {window}"] = pack.dense_mask(window)
        found[f"further {window}"] = pack.further_mask(1, 1, window)
    return {name: value.cpu().numpy() for name, value in found.items()}


def mixed(read: str) -> str:
    """What a mistake that a GPU would not forgive raises here."""
    there = torch.ones(3, device=NAME)
    mistakes: dict[str, Callable[[], Any]] = {
        "sum": lambda: there + torch.ones(3),
        "cat": lambda: torch.cat([there, torch.ones(1)]),
        "stack": lambda: torch.stack([there.sum(), torch.tensor(1.0)]),
        "gather": lambda: there.gather(0, torch.tensor([0])),
        "values": lambda: there.index_put((torch.tensor([0, 1]),), torch.ones(2)),
        "numpy": lambda: there.numpy(),
        "generator": lambda: torch.randn(3, device=NAME, generator=torch.Generator()),
        "weight": lambda: torch.nn.Linear(3, 3)(there),
    }
    try:
        mistakes[read]()
    except (RuntimeError, TypeError) as error:
        return str(error)
    return ""
