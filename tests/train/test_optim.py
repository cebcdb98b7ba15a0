"""Learning rates by step and optimizers by name."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from alignzoo.errors import UsageError
from alignzoo.plan.settings import Settings
from alignzoo.testing.tiny import CONFIGS, tiny_model
from alignzoo.train.optim import learning_rate, load_optimizer, make_optimizer, optimizer_class


def rates(schedule: str, steps: int = 20, warmup: int = 5) -> list[float]:
    settings = Settings.model_validate({"lr": 2.0, "schedule": schedule, "warmup_steps": warmup})
    return [learning_rate(step, steps, settings) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_step_after_the_warm_up_is_the_first_at_the_peak(schedule: str) -> None:
    assert rates(schedule)[:6] == pytest.approx([2 * k / 6 for k in range(1, 7)])


def test_the_warm_up_is_that_of_the_dpo_code() -> None:
    """DPO's and ShaPO's: ``LambdaLR(optimizer, lambda step: min(1, (step + 1) / (warmup_steps + 1)))``."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=2.0)
    released = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (5 + 1)))
    for rate in rates("constant"):
        assert rate == pytest.approx(released.get_last_lr()[0])
        optimizer.step()
        released.step()


@pytest.mark.parametrize(
    ("schedule", "theirs"), [("linear", "linear"), ("cosine", "cosine"), ("constant", "constant_with_warmup")]
)
def test_after_the_warm_up_rates_are_those_of_transformers(schedule: str, theirs: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=2.0)
    scheduler = transformers.get_scheduler(theirs, optimizer, num_warmup_steps=5, num_training_steps=20)
    for step, rate in enumerate(rates(schedule)):
        ahead = scheduler.get_last_lr()[0]
        assert rate == pytest.approx(ahead) if step >= 5 else rate > ahead
        optimizer.step()
        scheduler.step()


def test_after_the_warm_up_each_schedule_is_its_formula() -> None:
    done = [(step - 5) / 15 for step in range(5, 20)]
    assert rates("linear")[5:] == pytest.approx([2 * (1 - x) for x in done])
    assert rates("cosine")[5:] == pytest.approx([1 + math.cos(math.pi * x) for x in done])
    assert rates("constant")[5:] == pytest.approx([2.0] * 15)


def test_a_run_shorter_than_its_warm_up_still_reaches_the_peak() -> None:
    assert rates("cosine", steps=3, warmup=10) == pytest.approx([2 / 3, 4 / 3, 2.0])
    assert rates("linear", steps=1, warmup=10) == [2.0]


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


def decaying(model: Any) -> set[str]:
    """Names of the weights that decay."""
    optimizer = make_optimizer(model.parameters(), Settings(weight_decay=0.1))
    decay = {id(w): group["weight_decay"] for group in optimizer.param_groups for w in group["params"]}
    assert set(decay.values()) == {0.1, 0.0}
    return {name for name, weight in model.named_parameters() if decay[id(weight)]}


@pytest.mark.parametrize("family", CONFIGS)
def test_what_decays_is_what_decays_under_transformers(family: str) -> None:
    model = tiny_model(family)
    trainer: Any = SimpleNamespace()
    theirs = set(transformers.Trainer.get_decay_parameter_names(trainer, model))
    assert decaying(model) == theirs & {name for name, _ in model.named_parameters()}  # a tied weight has one name


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_without_weight_decay_there_is_one_group_in_the_order_of_the_model(decay: float) -> None:
    weights = list(tiny_model().parameters())
    optimizer = make_optimizer(weights, Settings(weight_decay=decay))
    assert [len(group["params"]) for group in optimizer.param_groups] == ([len(weights)] if not decay else [16, 5])
    assert optimizer.param_groups[0]["weight_decay"] == decay
    first = optimizer.param_groups[0]["params"]
    assert all(a is b for a, b in zip(first, [w for w in weights if not decay or w.dim() > 1], strict=True))


def test_an_optimizer_with_groups_continues_from_its_state() -> None:
    settings, models = Settings(weight_decay=0.1, lr=0.1), [tiny_model(), tiny_model()]
    first, second = (make_optimizer(model.parameters(), settings) for model in models)

    def step(optimizer: Any, model: Any) -> None:
        for i, weight in enumerate(model.parameters()):
            weight.grad = torch.full_like(weight, 0.01 * (i + 1))
        optimizer.step()

    step(first, models[0])
    models[1].load_state_dict(models[0].state_dict())
    load_optimizer(second, copy.deepcopy(first.state_dict()))
    for optimizer, model in zip((first, second), models, strict=True):
        step(optimizer, model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
