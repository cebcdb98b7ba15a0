"""Packing's trial is made once for the same weights, code and rows, and again for any others."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo.base import heap
from alignzoo.base.cache import cache_root
from alignzoo.distributed.process import alone
from alignzoo.logprobs import forward, heads
from alignzoo.logprobs.heads import is_fused
from alignzoo.model.identity import outputs_key
from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import require, resolve
from alignzoo.report import Reporter
from alignzoo.session import trials
from alignzoo.session.session import Session
from alignzoo.session.trials import trials_of
from alignzoo.testing.tiny import tiny_model

Open = Callable[[], Session]


@pytest.fixture
def opened(
    words: dict[str, Any], make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Open:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    plan = require(resolve([Layer("python", flatten({**words, "model": str(make_model())}, "the test"))]))
    return lambda: Session(plan, alone("the test"), Reporter())


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that packing was tried on."""
    seen: list[Any] = []
    choose = forward._try_forward

    def heard(policy: Any, *given: Any, **options: Any) -> Any:
        seen.append(policy)
        return choose(policy, *given, **options)

    monkeypatch.setattr(forward, "_try_forward", heard)
    return seen


def logps_of(session: Session) -> torch.Tensor:
    session.policy.eval()
    with torch.no_grad():
        return session.forward(session.policy, session.batches(0)[0]).logps


def test_a_second_run_takes_what_the_first_has_tried_and_computes_the_same(opened: Open, tried: list[Any]) -> None:
    first = opened()
    expected = logps_of(first)
    assert len(tried) == 1
    second = opened()
    assert torch.equal(logps_of(second), expected)
    assert len(tried) == 1
    assert (second.choice.way, second.choice.why) == (first.choice.way, first.choice.why) != ("padded", "")


def test_the_second_run_makes_no_pass_before_the_forward_is_chosen(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened()
    _ = first.choice
    fused = is_fused(first.policy)
    monkeypatch.setattr(heads, "_TRIED", {})  # as in another process
    second, passes = opened(), list[int]()
    key = outputs_key(second.policy, second.weights)  # with a hook, it has none
    monkeypatch.setattr(trials, "outputs_key", lambda *_: key)
    second.policy.register_forward_pre_hook(lambda *_: passes.append(1))
    _ = second.choice
    assert not passes
    assert is_fused(second.policy) is fused is True


def test_other_weights_and_damaged_files_are_tried_again(opened: Open, tried: list[Any]) -> None:
    _ = opened().choice
    changed = opened()
    with torch.no_grad():
        next(changed.policy.parameters()).view(-1)[0] += 1e-3
    _ = changed.choice
    assert len(tried) == 2
    for file in (cache_root() / "trials").iterdir():
        file.write_text(file.read_text().replace("packing", "packed"))
    _ = opened().choice
    assert len(tried) == 3


def test_a_model_that_something_hangs_on_is_not_remembered() -> None:
    model = tiny_model()
    assert trials_of(model, "weights") is not None
    next(model.children()).register_forward_hook(lambda *_: None)
    assert trials_of(model, "weights") is None


def test_an_environment_that_says_how_to_allocate_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1048576")
    assert not heap.keep_freed_memory()


def test_garbage_collection_pauses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("all"))
    monkeypatch.setattr(gc, "get_freeze_count", lambda: len(frozen))
    with heap.collecting_later():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert frozen == []
    with pytest.raises(KeyboardInterrupt), heap.collecting_later(freeze=True):
        raise KeyboardInterrupt
    assert gc.isenabled()
    for _ in range(2):
        with heap.collecting_later(freeze=True):
            pass
    assert frozen == ["all"]
