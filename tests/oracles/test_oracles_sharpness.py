"""Sharpness-aware controllers against what their authors' optimizers did (README.md here says how it was recorded).

At each of the recorded weights our controller must leave the gradient that the authors handed to their base optimizer.
The authors divide by ‖g‖ + 10⁻¹² (10⁻⁷ in ESAM and SSAM), which is where the last digits differ.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from problem import examples
from recorded import Regression, oracle

from alignzoo import load_method

close = torch.testing.assert_close


@pytest.mark.parametrize("name", ["sam", "asam", "gsam", "looksam", "friendly-sam", "wsam", "msam", "zsharp"])
def test_a_trajectory_equals_the_authors(name: str) -> None:
    recorded = oracle(name)
    close((recorded["inputs"], recorded["targets"]), examples())
    controller = load_method("geometry", name, **recorded["options"])
    for number, step in enumerate(recorded["steps"]):
        ours = Regression(step["weights"], recorded["inputs"], recorded["targets"], number).take(controller)
        close(ours, step["gradient"], rtol=1e-10, atol=1e-12)


def test_wsam_equals_the_authors_decoupled_form_under_sgd() -> None:
    recorded = oracle("wsam")
    controller = load_method("geometry", "wsam", **recorded["options"])
    for number, (step, moved) in enumerate(zip(recorded["steps"], recorded["decoupled_under_sgd"], strict=True)):
        ours = Regression(step["weights"], recorded["inputs"], recorded["targets"], number).take(controller)
        close(ours, moved, rtol=1e-10, atol=1e-12)


def test_esam_equals_the_authors() -> None:
    """With their draws of tensors, and the pairs that they keep."""
    recorded = oracle("esam")
    for case in recorded["cases"]:
        controller = load_method("geometry", "esam", **case["options"])
        for step in case["steps"]:
            ctx = drawing(step, recorded, case["options"]["keep"])
            close(ctx.take(controller), step["gradient"], rtol=1e-6, atol=1e-9)
            assert torch.equal(ctx.kept, step["kept"])


def drawing(step: dict[str, Any], recorded: dict[str, Any], keep: float) -> Regression:
    """The step with a seed of the run with which the recorded tensors are drawn."""
    for seed in range(1000):
        ctx = Regression(step["weights"], recorded["inputs"], recorded["targets"], seed=seed)
        if torch.equal(torch.rand(3, generator=ctx.generator("esam")) < keep, step["drawn"]):
            return ctx
    raise AssertionError("no seed below 1000 draws these tensors")


def test_rwp_equals_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the standard normal numbers behind their noise in place of ours."""
    recorded = oracle("rwp")
    controller = load_method("geometry", "rwp", **recorded["options"])
    for step in recorded["steps"]:
        numbers = iter(step["standard"].split([12, 3, 6]))
        ctx = Regression(step["weights"], recorded["inputs"], recorded["targets"])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randn", lambda shape, numbers=numbers, **_: next(numbers).view(shape))
            close(ctx.take(controller), step["gradient"], rtol=1e-9, atol=1e-12)


def test_ssam_equals_the_authors_by_fisher_information() -> None:
    recorded = oracle("ssam")
    fisher = recorded["fisher"]
    controller = load_method("geometry", "ssam", **fisher["options"])
    for step in fisher["steps"]:
        one = slice(step["example"], step["example"] + 1)
        ctx = Regression(fisher["weights"], recorded["inputs"][one], recorded["targets"][one], loss=fisher["loss"])
        close(ctx.take(controller), step["gradient"], rtol=1e-6, atol=1e-9)
        assert ctx.metrics["geometry/unperturbed"] == pytest.approx(1 - float(step["mask"].mean()))


def test_ssam_equals_the_authors_when_masks_move() -> None:
    recorded = oracle("ssam")
    dynamic = recorded["dynamic"]
    controller = load_method("geometry", "ssam", **dynamic["options"])
    masks = [
        part.view(shape).bool() for part, shape in zip(dynamic["first_mask"].split([12, 3, 6]), SHAPES, strict=True)
    ]
    controller.load_state_dict({"masks": masks, "information": [], "age": 1})
    for step in dynamic["steps"]:
        ctx = Regression(step["weights"], recorded["inputs"], recorded["targets"])
        close(ctx.take(controller), step["gradient"], rtol=1e-6, atol=1e-9)
        mask: Any = torch.cat([part.flatten() for part in controller.state_dict()["masks"]])
        assert torch.equal(mask, step["mask"].bool())


SHAPES = [(3, 4), (3,), (2, 3)]
