"""The recorded files, and the step that a method of ours takes on their problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from problem import cross_entropies, flat, network, squared_errors

from alignzoo import PairBatch
from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.objective.objective import Objective
from alignzoo.plugin import Options
from alignzoo.step.context import StepContext
from alignzoo.step.engine import Engine
from alignzoo.testing.tiny import cut


def oracle(name: str) -> dict[str, Any]:
    """A recorded file, its lists of numbers as float64 tensors."""
    found = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return {key: _tensors(value) for key, value in found.items()}


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        leaf = _first_leaf(value)
        if isinstance(leaf, (bool, int, float)):
            return torch.tensor(value, dtype=torch.float64 if isinstance(leaf, float) else None)
        return [_tensors(item) for item in value]
    return value


def _first_leaf(value: Any) -> Any:
    return _first_leaf(next(iter(value), None)) if isinstance(value, list) else value


LOSSES = {"squared errors": squared_errors, "cross entropy": cross_entropies}


class AsGiven(PreferenceLoss):
    """The loss of a pair whose chosen response has minus that loss as its log-prob."""

    def __init__(self) -> None:
        super().__init__(Options())

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        return pairs.rejected_logps - pairs.chosen_logps


class Regression(StepContext):
    """A step on the regression of ``problem.py``: its examples stand for pairs, in micro-batches of four.

    Args:
        weights: of the network, as one vector.
        inputs, targets: of the step's examples.
    """

    def __init__(
        self,
        weights: torch.Tensor,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        step: int = 0,
        *,
        loss: str = "squared errors",
        seed: int = 0,
    ) -> None:
        model = network()
        torch.nn.utils.vector_to_parameters(weights.clone(), list(model.parameters()))
        examples = [{"row_id": i, "prompt_ids": [1], "response_ids": [[2], [2]]} for i in range(len(inputs))]
        batches = cut(examples, 4)

        def forward(model: Any, batch: TokenBatch) -> ResponseBatch:
            losses = LOSSES[loss](model(inputs[batch.row_ids]), targets[batch.row_ids])
            tokens = torch.ones_like(losses)
            return ResponseBatch.of_pairs(PairBatch(-losses, 0 * losses, tokens, tokens))

        engine = Engine(model, forward, Objective(AsGiven()), Accelerator(cpu=True), seed)
        super().__init__(engine, batches, [None] * len(batches), step)
        self.kept = torch.ones(len(inputs), dtype=torch.bool)

    def only(self, kept: torch.Tensor) -> StepContext:
        self.kept = kept
        return super().only(kept)

    def take(self, controller: Any) -> torch.Tensor:
        """The gradient that the controller leaves, as one vector."""
        here = flat(self.trainable())
        controller.step(self)
        assert torch.equal(flat(self.trainable()), here), "the weights are back where they were"
        return flat([weight.grad for weight in self.trainable()])
