"""NSPO against its authors' code (README.md here says how it was recorded)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from llama import model, moved, seen_from_outside, texts
from recorded import oracle

from alignzoo import load_method
from alignzoo.report import Reporter
from alignzoo.step.setup import SetupContext


def test_weights_after_nspos_projection_equal_the_authors() -> None:
    """Two steps one after another: every weight, held or free, as two numbers; and how many directions are free."""
    recorded = oracle("nspo")
    policy: Any = model()
    nspo = load_method("geometry", "nspo", **recorded["options"])
    nothing: Any = None
    nspo.setup(SetupContext(policy, 0, Reporter(), probe=nothing, texts=lambda data, samples: texts()))
    free = [len(directions) for directions, updates in nspo.held for _ in updates]
    assert free == list(recorded["free"].values()), "gate, up and down projection of each layer"
    for step, expected in enumerate(recorded["weights"]):
        moved(policy, step)
        nspo.after_step(SimpleNamespace(log=lambda *_: None))
        found = seen_from_outside(list(policy.parameters()))
        torch.testing.assert_close(found[:, 1], expected[:, 1], rtol=1e-10, atol=0)
        torch.testing.assert_close(found[:, 0] / found[:, 1], expected[:, 0] / expected[:, 1], rtol=0, atol=1e-9)
