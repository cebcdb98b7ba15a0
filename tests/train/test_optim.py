"""Learning rates by step and optimizers by name."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo.errors import UsageError
from alignzoo.plugin.settings import Settings
from alignzoo.train.optim import learning_rate, make_optimizer, optimizer_class


def rates(schedule: str, steps: int = 20, warmup: int = 5) -> list[float]:
    settings = Settings.model_validate({"lr": 2.0, "schedule": schedule, "warmup_steps": warmup})
    return [learning_rate(step, steps, settings) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_warm_up_is_linear_and_ends_at_the_peak(schedule: str) -> None:
    assert rates(schedule)[:6] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0])


def test_after_the_warm_up_each_schedule_is_its_formula() -> None:
    done = [(step - 5) / 15 for step in range(5, 20)]
    assert rates("linear")[5:] == pytest.approx([2 * (1 - x) for x in done])
    assert rates("cosine")[5:] == pytest.approx([1 + math.cos(math.pi * x) for x in done])
    assert rates("constant")[5:] == pytest.approx([2.0] * 15)


def test_a_run_shorter_than_its_warm_up_still_reaches_the_peak() -> None:
    assert rates("cosine", steps=3, warmup=10) == pytest.approx([2 / 3, 4 / 3, 2.0])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
        ("SGD", torch.optim.SGD),
        ("NAdam", torch.optim.NAdam),
    ],
)
def test_optimizers_by_name(name: str, kind: type) -> None:
    settings = Settings(optimizer=name, lr=0.1, weight_decay=0.01)
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(2))], settings)
    assert type(optimizer) is kind
    assert optimizer.defaults["weight_decay"] == 0.01


def test_an_unknown_optimizer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="no such optimizer") as refusal:
        optimizer_class("rmspop")
    assert "rmsprop" in str(refusal.value)
