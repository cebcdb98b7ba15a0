"""Runs that follow one another in a process, as in a sweep: bit for bit those of processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import Az, MakeModel, RunFolder, Start

from alignzoo.base.memo import Memo
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.report import Reporter
from alignzoo.runs.execute import execute
from alignzoo.runs.shared import Shared

Command = Callable[..., list[str]]
FEW = {"max-steps": 3, "eval-every": 2, "save-model": False}
OF_THE_FOLDER = ("folder", "seconds", "peak_memory")


def _warm(shared: Shared, words: dict[str, Any], out: Path, **given: Any) -> RunFolder:
    plan = require(resolve([Layer("python", {**words, **FEW, **given, "out": str(out)})]))
    return RunFolder(Path(execute(plan, reporter=Reporter(), shared=shared).folder))


def _result(run: RunFolder) -> dict[str, Any]:
    return {name: value for name, value in run.result.items() if name not in OF_THE_FOLDER}


def test_a_run_after_others_is_bit_for_bit_a_run_of_its_own_process(
    words: dict[str, Any], start: Start, command: Command, make_model: MakeModel, tmp_path: Path
) -> None:
    words = {**words, "model": str(make_model())}
    first, last = {"loss": "dpo", "seed": 0}, {"loss": "simpo", "geometry": "sam", "seed": 1, "label-noise": 0.2}
    shared = Shared()
    _warm(shared, words, tmp_path / "first", **first)
    torch.rand(3)  # a random state that nobody else has
    warm = _warm(shared, words, tmp_path / "warm", **last)
    given = {key: value for key, value in {**words, **FEW, **last}.items() if key != "save-model"}
    process = start(*command(tmp_path / "cold", "--no-save-model", **given))
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    cold = RunFolder(tmp_path / "cold")
    assert _result(warm) == _result(cold)
    assert warm.timeless() == cold.timeless()


def test_a_run_repeated_in_the_same_process_is_the_same(words: dict[str, Any], tmp_path: Path) -> None:
    shared = Shared()
    one, two = (_warm(shared, words, tmp_path / name, loss="dpo", seed=3) for name in ("one", "two"))
    assert _result(one) == _result(two)
    assert one.timeless() == two.timeless()


def test_what_a_run_trains_is_not_what_the_next_one_begins_with(words: dict[str, Any], tmp_path: Path) -> None:
    shared, seen = Shared(), []
    for name in ("one", "two"):
        run = _warm(shared, words, tmp_path / name, loss="dpo", lr=1e-2)
        seen.append(run.result["before"]["eval/loss"])
        assert run.result["after"]["eval/loss"] != run.result["before"]["eval/loss"]
    assert seen[0] == seen[1]


def test_changed_weights_are_read_again(words: dict[str, Any], make_model: MakeModel, tmp_path: Path) -> None:
    import shutil
    import time

    from safetensors.torch import load_file, save_file

    folder, shared = tmp_path / "model", Shared()
    shutil.copytree(make_model(), folder)
    time.sleep(2.1)  # younger files are not kept at all: their next change might have the same time stamp
    words = {**words, "model": str(folder)}
    before = _warm(shared, words, tmp_path / "before", loss="dpo")
    weights = load_file(folder / "model.safetensors")
    save_file({name: 1.5 * tensor for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    after = _warm(shared, words, tmp_path / "after", loss="dpo")
    assert after.result["before"] != before.result["before"]
    assert after.result["weights"] != before.result["weights"]


def test_answers_before_training_are_generated_once(
    words: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignzoo_sandbox import EVALUATION_SPLITS
    from alignzoo_sandbox.extensions import Answers

    asked: list[int] = []
    figures = {f"{kind}/{split}": 0.5 for kind in ("asr", "refusal", "broken") for split in EVALUATION_SPLITS}
    monkeypatch.setattr(Answers, "figures", lambda self, run: asked.append(1) or dict(figures))
    shared = Shared()
    given = {**words, "data": "sandbox", "eval-pairs": 8}
    for seed in (0, 1):
        run = _warm(shared, given, tmp_path / str(seed), loss="dpo", seed=seed)
        assert run.result["before"]["sandbox/asr/test"] == 0.5
    assert len(asked) == 3  # before training once, and after each
    choosing = _warm(shared, given, tmp_path / "choosing", loss="dpo", validation=True)
    assert "sandbox/asr/test" not in choosing.result["before"]  # no figures of a report, on other prompts


def test_held_out_responses_are_shared_however_many_batches_there_are(
    words: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignzoo.step import held_out

    computed, forward = list[int](), held_out.forward
    monkeypatch.setattr(held_out, "forward", lambda *given: computed.append(1) or forward(*given))
    shared, counts = Shared(), []
    given = {**words, "data": "sandbox", "eval-pairs": 24, "micro-batch-size": 2, "max-steps": 1, "samples": False}
    for loss, seed in (("simpo", 0), ("simpo", 1), ("dpo", 0)):
        _warm(shared, given, tmp_path / f"{loss}-{seed}", loss=loss, seed=seed)
        counts.append(len(computed))
    batches = 24 // 2
    assert counts == [3 * batches, 5 * batches, 7 * batches]  # of dpo, the table has what the memo could give


def test_figures_before_training_do_not_depend_on_who_shares_them(words: dict[str, Any], tmp_path: Path) -> None:
    """A loss with a reference after one without, of the same held-out rows: as if it ran on its own."""
    given, shared = {**words, "data": "sandbox", "eval-pairs": 8, "samples": False}, Shared()
    _warm(shared, given, tmp_path / "simpo", loss="simpo")
    sharing = _warm(shared, given, tmp_path / "sharing", loss="dpo")
    alone = _warm(Shared(limit=0), given, tmp_path / "alone", loss="dpo")
    assert sharing.result["before"] == alone.result["before"]


def test_without_a_model_a_finished_run_has_its_figures_only(
    az: Az, command: Command, tmp_path: Path, words: dict[str, Any]
) -> None:
    ended = az(*command(tmp_path / "run", "--no-save-model", "--json", **{"save-every": 1}))
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["weights"]
    assert result["peak_memory"] > 50e6
    assert not {"model", "checkpoints"} & {path.name for path in (tmp_path / "run").iterdir()}
    again = az("run", "--resume", str(tmp_path / "run"))
    assert "already finished" in again.stderr


def test_a_memo_keeps_the_values_used_last() -> None:
    memo, made = Memo(limit=2), list[str]()
    for key in "abacab":
        memo.get("letters", key, lambda key=key: made.append(key))  # type: ignore[misc]
    assert "".join(made) == "abcb"
