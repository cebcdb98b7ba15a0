"""What makes runs quicker or smaller does not change them: packing, token budgets, checkpointed activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard
from run_helpers import Az, MakeModel, OnTwoRanks, RunFolder, Train

METHODS: dict[str, Any] = {"robust": ["drdpo"], "geometry": "shapo-token", "geometry.interval": 1}
WAYS: dict[str, dict[str, Any]] = {
    "padded": {"packing": False},
    "padded budget": {"packing": False, "tokens_per_micro_batch": 400, "micro_batch_size": None},
    "budget": {"tokens_per_micro_batch": 300, "micro_batch_size": None},
    "checkpointed": {"activation_checkpointing": True},
    "reference in every step": {"reference_cache": False},
}


def same_run(found: RunFolder, expected: RunFolder) -> None:
    for line, other in zip(found.timeless(), expected.timeless(), strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-5)
    for name, weight in found.weights.items():
        torch.testing.assert_close(weight, expected.weights[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adapter", [{}, {"lora.r": 4}])
def test_the_ways_to_the_same_run(adapter: dict[str, Any], train: Train, make_model: MakeModel) -> None:
    given = {"model": str(make_model()), "optimizer": "sgd", "lr": 0.01, "max_steps": 3, **METHODS, **adapter}
    packed = train(**given)
    for name, way in WAYS.items():
        try:
            same_run(train(**given, **way), packed)
        except AssertionError as error:
            raise AssertionError(name) from error


def test_a_run_says_whether_it_packs(train: Train, make_model: MakeModel) -> None:
    heard = Heard()
    train(model=str(make_model()), max_steps=1, report=heard)
    assert [note for note in heard.notes if note.startswith("packing: each prompt once, no padding")]
    train(model=str(make_model()), max_steps=1, packing=False, report=heard)
    assert [note for note in heard.notes if "--no-packing" in note]


def test_fewer_tokens_per_pass_take_more_passes(train: Train, make_model: MakeModel, monkeypatch: Any) -> None:
    from alignzoo.data import batches

    cuts: list[int] = []
    original = batches.Sizes.cut

    def counted(self: Any, shares: Any, lengths: Any) -> Any:
        found = original(self, shares, lengths)
        cuts.append(len(found[0]))
        return found

    monkeypatch.setattr(batches.Sizes, "cut", counted)
    given = {"model": str(make_model()), "max_steps": 2, "eval_share": 0, "micro_batch_size": None}
    train(**given, tokens_per_micro_batch=10_000)
    assert set(cuts) == {1}
    cuts.clear()
    train(**given, tokens_per_micro_batch=1)
    assert set(cuts) == {8}, "a pair that is longer than the budget is computed alone"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--quantize", "4bit"], "--quantize 4bit needs an adapter to train"),
        (["--quantize", "4bit", "--lora.r", "4"], "--quantize 4bit needs a CUDA device"),
        (["--optimizer", "adamw8bit"], "--optimizer adamw8bit needs a CUDA device"),
        (["--tokens-per-micro-batch", "0"], "tokens-per-micro-batch"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_cannot_be_had_here_is_refused(words: list[str], message: str, az: Az, tmp_path: Path) -> None:
    ended = az("run", *words, "--max-steps", "1", "--out", str(tmp_path / "run"))
    assert ended.returncode == 2
    assert message in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("geometry", "sharded"), [("sam", False), ("esam", True)])
def test_a_budget_and_checkpointed_activations_on_two_ranks(
    geometry: str, sharded: bool, command: Any, az: Az, on_two_ranks: OnTwoRanks, make_model: MakeModel, tmp_path: Path
) -> None:
    """`esam` takes its second gradient on some of the pairs, which lie in other micro-batches on each rank."""
    given = {"model": make_model(), "max-steps": 4, "optimizer": "sgd", "lr": 1e-2, "geometry": geometry}
    given |= {"geometry.interval": 1, "tokens-per-micro-batch": 200, "micro-batch-size": None}
    ended = az(*command(tmp_path / "one", "--activation-checkpointing", **given))
    assert ended.returncode == 0, ended.stderr
    launch = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"} if sharded else {}
    both = on_two_ranks(*command(tmp_path / "two", "--activation-checkpointing", **given), **launch)
    assert both.returncode == 0, both.stderr
    same_run(RunFolder(tmp_path / "two"), RunFolder(tmp_path / "one"))
