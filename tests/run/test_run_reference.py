"""The reference's log-probs are computed once, shared between runs, and make the run that it would be without them."""

from __future__ import annotations

import gc
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from heard import Heard
from run_helpers import LN2, Az, MakeModel, OnTwoRanks, RunFolder, Start, Train, same

from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import require, resolve
from alignzoo.reference import compute
from alignzoo.runs.course import Course

Command = Callable[..., list[str]]
BATCHES = "import alignzoo.reference.compute as compute; compute.TOKENS_ON_CPU = 60; compute.SECONDS_PER_SHARD = 0; "
DIES = (
    "import os, alignzoo.reference.store as store; write = store.write_shard; "
    "store.write_shard = lambda folder, values: "
    "(write(folder, values), len(os.listdir(folder)) == 3 and os.kill(os.getpid(), 9)); "
)
RUNS = "import sys; del sys.argv[1:3]; from alignzoo.cli.main import main; main()"  # what `-m alignzoo` would


@pytest.fixture
def store(environment: dict[str, str]) -> Path:
    """Where the log-probs are kept, with nothing there yet."""
    folder = Path(environment["ALIGNZOO_CACHE"]) / "reference"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture(autouse=True)
def _tiny(words: dict[str, Any], make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(words, "model", str(make_model()))
    monkeypatch.setitem(words, "probe.share", 0.0)


def counts(said: str) -> tuple[int, int]:
    """Pairs that were computed, and pairs from earlier runs."""
    [found] = re.findall(r"reference log-probs: (\d+) pairs computed, (\d+) from earlier runs", said)
    return int(found[0]), int(found[1])


def counted(train: Train, **given: Any) -> tuple[int, int]:
    heard = Heard()
    train(report=heard, **given)
    return counts("\n".join(heard.notes))


AS_EVERY_STEP: dict[str, Any] = {
    "max_steps": 6,
    "robust": "drdpo",
    "geometry": "sam",
    "eval_every": 2,
    "label_noise": 0.2,
}


def test_in_the_same_batches_the_run_is_exactly_the_one_without_the_cache(
    train: Train, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row per forward, with and without the cache: no rounding may differ, not even after six steps."""
    monkeypatch.setattr(compute, "TOKENS_ON_CPU", 1)
    given = {**AS_EVERY_STEP, "micro_batch_size": 1}
    every_step = train(**given, reference_cache=False)
    for cached in (train(**given), train(**given)):
        assert cached.timeless() == every_step.timeless()
        assert same(cached.weights, every_step.weights)
        for when in ("before", "after"):
            assert cached.result[when] == every_step.result[when]


def test_the_run_is_the_one_without_the_cache(train: Train, store: Path) -> None:
    """The cache has batches of its own, which round differently: fp32 sums near −200 nats are 1.5e-5 apart.

    Three such steps in every response, times β = 0.1, are the tolerance; the test above has none.
    """
    heard = Heard()
    every_step = train(**AS_EVERY_STEP, reference_cache=False, report=heard)
    assert not store.exists()
    assert not any("reference log-probs" in note for note in heard.notes)
    for cached in (train(**AS_EVERY_STEP), train(**AS_EVERY_STEP)):
        for here, there in zip(cached.timeless(), every_step.timeless(), strict=True):
            assert here == pytest.approx(there, rel=1e-6, abs=5e-6)
        for when in ("before", "after"):
            assert cached.result[when] == pytest.approx(every_step.result[when], rel=1e-6, abs=5e-6)


def test_runs_that_share_a_reference_compute_it_once(train: Train, store: Path) -> None:
    new, kept = counted(train)
    assert (new > 20, kept) == (True, 0)
    hits: dict[str, dict[str, Any]] = {
        "learning rate": {"lr": 1e-5},
        "seed, all pairs visited": {"seed": 3, "max_steps": 9},
        "label noise": {"label_noise": 0.4},
        "adapter": {"lora.r": 2},
        "other methods": {"loss": "ipo", "robust": "drdpo"},
        "batches": {"micro_batch_size": 1, "batch_size": 4, "max_steps": 4},
        "dropout": {"dropout": True},
        "padding": {"packing": False},
    }
    total = sum(counted(train, max_steps=9))
    for name, given in hits.items():
        found, before = counted(train, **given)
        assert (found, before > 0) == (0, True), name
    assert counted(train, max_steps=9) == (0, total)
    assert len(list(store.iterdir())) == 1
    assert counted(train, max_steps=9, precision="bf16") == (total, 0)
    # Cuts most responses, and drops some pairs.
    shorter, kept = counted(train, max_length=24, max_prompt_length=20)
    assert shorter > kept


def test_in_bf16_packed_and_padded_references_are_kept_apart(train: Train, store: Path) -> None:
    given: dict[str, Any] = {"max_steps": 1, "precision": "bf16"}
    padded = train(**given, packing=False)
    total, _ = counted(train, **given)
    assert total > 0
    assert counted(train, **given) == counted(train, **given, packing=False) == (0, total)
    assert train(**given, packing=False).timeless() == padded.timeless()
    for packing in (False, True):
        assert train(**given, packing=packing).column("loss")[0] == pytest.approx(LN2, abs=1e-3)


def test_a_trained_adapter_is_a_reference_of_its_own(train: Train, store: Path, tmp_path: Path) -> None:
    adapter = train(**{"lora.r": 2})
    assert len(list(store.iterdir())) == 1
    new, kept = counted(train, model=str(adapter.path / "model"))
    assert (new > 20, kept) == (True, 0)
    assert len(list(store.iterdir())) == 2
    assert counted(train, model=str(adapter.path / "model"), seed=0, lr=1e-5)[0] == 0


def test_a_loss_without_a_reference_computes_none(train: Train, store: Path) -> None:
    heard = Heard()
    train(loss="simpo", report=heard)
    assert not store.exists()
    assert not any("reference log-probs" in note for note in heard.notes)


@pytest.mark.parametrize("cached", [True, False])
def test_no_second_model_stays_in_memory(cached: bool, words: dict[str, Any], tmp_path: Path, store: Path) -> None:
    given = {**words, "out": str(tmp_path / "out"), "reference-cache": cached}
    plan = require(resolve([Layer("python", flatten(given, "the recipe"))], distributed="none"))
    gc.collect()
    before = [thing for thing in gc.get_objects() if isinstance(thing, transformers.PreTrainedModel)]
    run = Course(plan, Heard(), None)
    session, loop = run.prepare()
    gc.collect()
    now = [thing for thing in gc.get_objects() if isinstance(thing, transformers.PreTrainedModel)]
    causal = [thing for thing in now if hasattr(thing, "lm_head") and not any(thing is other for other in before)]
    assert len(causal) == (1 if cached else 2)
    assert loop.reference is not None
    assert session.engine is loop.engine


@pytest.mark.slow
def test_killed_while_computing_it_goes_on_where_it_was(
    command: Command, start: Start, az: Az, store: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"robust": "drdpo", "max-steps": 6, "eval-every": 3}
    ended = start(*command(tmp_path / "whole", **given), launcher=("-c", BATCHES + RUNS))
    _, said = ended.communicate(timeout=200)
    assert ended.returncode == 0, said
    total, kept = counts(said)
    assert kept == 0
    shutil.rmtree(store)
    killed = start(*command(tmp_path / "killed", **given), launcher=("-c", BATCHES + DIES + RUNS))
    _, said = killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL, said
    assert len(list(store.glob("*/sums-*"))) in (2, 3)  # two and a folder half-written, or three
    again = start("run", "--resume", str(tmp_path / "killed"), launcher=("-c", BATCHES + RUNS))
    _, said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    computed, kept = counts(said)
    assert computed + kept == total
    assert 2 <= kept < total
    whole, resumed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    assert resumed.timeless() == whole.timeless()
    assert same(resumed.weights, whole.weights)


def test_a_resumed_run_has_the_reference_it_started_with(train: Train, az: Az, store: Path) -> None:
    """Also where the cache was cleared: the checkpoint's weights are not the reference's."""
    given: dict[str, Any] = {"max_steps": 6, "save_every": 3, "lr": 1e-2}
    whole = train(**given)
    metrics, weights = whole.timeless(), whole.weights
    for cleared in (False, True):
        (whole.path / "result.json").unlink()
        shutil.rmtree(whole.path / "checkpoints" / "step-00000006")
        if cleared:
            shutil.rmtree(store)
        ended = az("run", "--resume", str(whole.path))
        assert ended.returncode == 0, ended.stderr
        assert "resuming after step 3 of 6" in ended.stderr
        assert (counts(ended.stderr)[1] == 0) == cleared
        assert whole.timeless() == metrics
        assert same(whole.weights, weights)


@pytest.mark.slow
@pytest.mark.parametrize("launch", [{}, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}], ids=["ddp", "fsdp"])
def test_two_ranks_have_the_log_probs_of_one(
    launch: dict[str, str], command: Command, az: Az, on_two_ranks: OnTwoRanks, store: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"robust": "drdpo", "max-steps": 4, "eval-every": 2}
    ended = az(*command(tmp_path / "one", **given))
    assert ended.returncode == 0, ended.stderr
    shutil.rmtree(store)
    both = on_two_ranks(*command(tmp_path / "two", **given), **launch)
    assert both.returncode == 0, both.stderr
    assert counts(both.stderr) == counts(ended.stderr)
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    for here, there in zip(two.timeless(), one.timeless(), strict=True):
        assert here == pytest.approx(there, rel=1e-5, abs=1e-5)
    warm = az(*command(tmp_path / "warm", **given))
    assert counts(warm.stderr) == (0, counts(ended.stderr)[0])


def test_a_cache_that_cannot_be_written_stops_no_run(
    train: Train, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    plain = train()
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "file"))
    heard = Heard()
    run = train(report=heard)
    [warning] = [text for text in heard.warnings if "reference log-probs" in text]
    assert "cannot cache the reference log-probs" in warning
    assert run.timeless() == plain.timeless()
