"""Settings of the loop: optimizers, schedules, clipping, batches, seeds, evaluation, tracking, warnings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard
from run_helpers import EVAL_KEYS, MakeModel, Train, same


@pytest.mark.parametrize("optimizer", ["adamw", "RMSprop", "sgd", "nadam", "adafactor"])
def test_optimizers_by_name(optimizer: str, train: Train) -> None:
    run = train(optimizer=optimizer, max_steps=3, save_every=2, weight_decay=0.01)
    assert all(math.isfinite(value) for value in run.column("loss"))
    saved = run.path / "checkpoints" / "step-00000003" / "optimizer_and_methods.pt"
    assert torch.load(saved, weights_only=True)["optimizer"]["param_groups"][0]["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25]),
        ("cosine", [1 / 3, 2 / 3, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
    ],
)
def test_schedules(schedule: str, expected: list[float], train: Train, make_model: MakeModel) -> None:
    run = train(model=str(make_model()), schedule=schedule, warmup_steps=2, max_steps=6, lr=1e-4)
    assert run.column("lr") == pytest.approx([1e-4 * share for share in expected])


def test_the_norm_is_reported_before_clipping(train: Train, make_model: MakeModel) -> None:
    given: dict[str, Any] = {"model": str(make_model()), "optimizer": "sgd", "lr": 1.0, "max_steps": 1}
    free = train(**given, max_grad_norm=0)
    [norm] = free.column("grad_norm")
    clipped = train(**given, max_grad_norm=norm / 2)
    assert clipped.column("grad_norm") == [norm]
    from safetensors.torch import load_file

    start = load_file(make_model() / "model.safetensors")
    moved = [
        math.sqrt(sum(float((run.weights[name] - start[name]).double().square().sum()) for name in start))
        for run in (free, clipped)
    ]
    assert moved[0] == pytest.approx(norm, rel=1e-4)
    assert moved[1] == pytest.approx(norm / 2, rel=1e-4)


@pytest.mark.parametrize("methods", [{"loss": "ipo"}, {"robust": ["drdpo"], "geometry": "shapo-token"}])
def test_micro_batches_do_not_matter(methods: dict[str, Any], train: Train, make_model: MakeModel) -> None:
    interval = {"geometry.interval": 1} if "geometry" in methods else {}
    runs = [
        train(model=str(make_model()), **methods, **interval, micro_batch_size=size, max_steps=3) for size in (1, 3, 8)
    ]
    for other in runs[1:]:
        for line, first in zip(other.metrics, runs[0].metrics, strict=True):
            assert {k: v for k, v in line.items() if k != "step_seconds"} == pytest.approx(
                {k: v for k, v in first.items() if k != "step_seconds"}, rel=1e-4, abs=1e-5
            )


def test_a_seed_is_a_run(train: Train, make_model: MakeModel) -> None:
    first, again, other = (train(model=str(make_model()), seed=seed) for seed in (5, 5, 6))
    assert first.timeless() == again.timeless()
    assert same(first.weights, again.weights)
    assert not same(first.weights, other.weights)


def test_evaluation_every_so_many_steps(train: Train, make_model: MakeModel) -> None:
    run = train(model=str(make_model()), eval_every=2, max_steps=5)
    assert [line["step"] for line in run.metrics if line.keys() >= EVAL_KEYS] == [2, 4]
    without = train(model=str(make_model()), max_steps=5)
    assert not [line for line in without.metrics if EVAL_KEYS & line.keys()]
    assert same(run.weights, without.weights)


def test_likelihood_displacement_is_said(train: Train) -> None:
    """A high rate drives a good model away from both sides; a gentle one does not."""
    heard, calm = Heard(), Heard()
    high = train(lr=3e-2, report=heard)
    before, after = high.result["before"], high.result["after"]
    assert after["eval/logps/chosen"] < before["eval/logps/chosen"]
    assert after["eval/logps/rejected"] < before["eval/logps/rejected"]
    [warning] = [text for text in heard.warnings if "likelihood displacement" in text]
    lost = before["eval/logps/chosen"] - after["eval/logps/chosen"]
    rejected = before["eval/logps/rejected"] - after["eval/logps/rejected"]
    assert f"chosen responses lost {lost:.2f} nats on average, rejected ones {rejected:.2f};" in warning
    assert "a lower --lr" in warning
    train(lr=1e-8, report=calm)
    assert not [text for text in calm.warnings if "likelihood displacement" in text]


def test_tensorboard_gets_the_metrics(train: Train, make_model: MakeModel) -> None:
    run = train(model=str(make_model()), track="tensorboard", eval_every=1)
    events = list(run.path.rglob("events.out.tfevents.*"))
    assert events
    content = b"".join(Path(event).read_bytes() for event in events)
    for name in (b"loss", b"rewards/margins", b"logps/chosen", b"eval/loss"):
        assert name in content
    assert run.result["steps"] == 2
