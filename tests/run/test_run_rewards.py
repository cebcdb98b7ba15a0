"""Runs on a reward: each source of scores trains, each pair is scored once, and what cannot be read is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_sandbox import preference_rows
from heard import Heard
from reward_helpers import save_classifier
from run_helpers import Az, MakeModel, OnTwoRanks, RunFolder, Start, Train, write_rows

import alignzoo
from alignzoo.base.cache import cache_root
from alignzoo.errors import AlignzooError, DataError, MethodError, ModelError, UsageError
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plugin import plugins_from
from alignzoo.reward import scoring
from alignzoo.runs.execute import resume

SHAPO = {"geometry": "shapo-reward", "geometry.interval": 1, "geometry.select": "random", "eval-share": 0.2}
COUNTING = """
import json
import os
from pathlib import Path

from alignzoo.interfaces import PreferenceLoss, Reward
from alignzoo.plugin import Card, Options, hookimpl
from pydantic import Field


class LengthOptions(Options):
    spoil: str = Field("", description="what goes wrong", examples=["nan"])


class Length(Reward):
    def scores(self, responses):
        log, rank = Path({log!r}), os.environ.get("RANK", "0")
        log.touch()
        stop = log.with_suffix(".stop")
        if stop.exists() and len(log.read_text().splitlines()) >= int(stop.read_text()):
            raise ZeroDivisionError("interrupted")
        with log.open("a") as file:
            file.writelines(json.dumps([r.pair_id, r.messages[-1]["content"], rank]) + "\\n" for r in responses)
        found = [-0.01 * len(r.messages[-1]["content"]) for r in responses]
        spoiled = {{"few": found[:-1], "nan": [float("nan"), *found[1:]], "text": ["good", *found[1:]]}}
        if self.options.spoil == "raise" or self.options.spoil == "raise on rank " + rank:
            raise ZeroDivisionError("by the author")
        return spoiled.get(self.options.spoil, found)


class OneWay(PreferenceLoss):
    def __call__(self, pairs):
        return -pairs.chosen_logps

    def rewards(self, pairs):
        return pairs.chosen_logps, pairs.rejected_logps


@hookimpl
def alignzoo_methods():
    facts = {{"summary": "s", "formula": "f"}}
    return [
        Card(kind="reward", name="length", target=f"{{__name__}}:Length", options=LengthOptions, **facts),
        Card(kind="loss", name="one-way", target=f"{{__name__}}:OneWay", swaps=False, **facts),
    ]
"""


@pytest.fixture
def counting(tmp_path: Path) -> tuple[Path, Callable[[], list[Any]]]:
    """A plugin with a reward that writes down what it is asked, and those lines."""
    log, file = tmp_path / "asked.jsonl", tmp_path / f"counting_{tmp_path.name}.py"
    file.write_text(COUNTING.format(log=str(log)))
    return file, lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def scored_pairs(pairs: Path, tmp_path: Path) -> Path:
    """The pairs with scores that contradict every fourth label."""
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    scored = [{**row, "chosen_score": 1.0 if i % 4 else -1.0, "rejected_score": 0.0} for i, row in enumerate(rows)]
    return write_rows(tmp_path / "scored.jsonl", scored)


def kept() -> set[Path]:
    return set((cache_root() / "scores").glob("*.safetensors"))


def lower(run: RunFolder) -> bool:
    """Whether the objective on held-out pairs went down."""
    return bool(run.result["after"]["eval/loss"] < run.result["before"]["eval/loss"] - 1e-3)


def test_the_probe_is_the_reward_where_nothing_else_is_given(train: Train) -> None:
    heard = Heard()
    run = train(report=heard, **SHAPO, **{"max-steps": 8})
    assert run.result["sentence"] == "--loss dpo --robust soft-label --geometry shapo-token"
    assert run.plan["reward"]["name"] == "probe"
    assert lower(run)
    assert any(note.startswith("reward probe:") for note in heard.notes)
    facts = json.loads((run.path / "soft_labels.json").read_text())
    assert sum(facts["counts"]) == facts["pairs"] == run.result["pairs"]["train"]
    assert len(facts["edges"]) == len(facts["counts"]) + 1 == 11
    assert [int(row[1]) for row in heard.tables["soft labels of the training pairs"]] == facts["counts"]
    assert all(0 <= line["robust/soft-label/soft_label_mean"] <= 1 for line in run.metrics)


def test_a_column_is_the_reward(train: Train, scored_pairs: Path) -> None:
    words = {**SHAPO, "data": str(scored_pairs), "reward": "column", "max-steps": 8}
    run = train(**words)
    assert run.result["sentence"] == "--loss dpo --robust soft-label --geometry shapo-token --reward column"
    assert lower(run)
    facts = json.loads((run.path / "soft_labels.json").read_text())
    assert facts["counts"][0] + facts["counts"][-1] == facts["pairs"]
    assert facts["counts"][0] == round(facts["disagrees"] * facts["pairs"]) > 0
    noisy = train(**words, **{"label-noise": 1.0})  # every pair and its scores swapped
    turned = json.loads((noisy.path / "soft_labels.json").read_text())
    assert turned["counts"] == facts["counts"][::-1]
    assert turned["mean"] == pytest.approx(1 - facts["mean"])


def test_a_saved_classifier_is_the_reward(train: Train, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "classifier")
    words = {**SHAPO, "reward": "hf", "reward.model": str(folder), "max-steps": 8}
    run = train(**words)
    assert lower(run)
    cost = train(**words, **{"reward.sign": -1})
    one, other = (json.loads((r.path / "soft_labels.json").read_text()) for r in (run, cost))
    assert other["mean"] == pytest.approx(1 - one["mean"])
    assert run.plan["reward"]["options"]["model"]["value"] == str(folder)


def test_the_wrapper_is_the_objective_without_the_geometry(train: Train, scored_pairs: Path) -> None:
    words = {"data": str(scored_pairs), "reward": "column", "eval-share": 0.2}
    wrapped = train(**words, robust="soft-label", geometry="sam")
    assert wrapped.metrics[0]["loss"] == pytest.approx(train(**{**SHAPO, **words}).metrics[0]["loss"])
    assert (wrapped.path / "soft_labels.json").is_file()


def test_shapo_reward_is_its_parts(train: Train, scored_pairs: Path) -> None:
    """shapo-token under the soft-label wrapper, to the bit."""
    words = {**SHAPO, "data": str(scored_pairs), "reward": "column", "max-steps": 3, "robust": ["drdpo"]}
    whole = train(**words)
    parts = train(**{**words, "geometry": "shapo-token", "robust": ["soft-label", "drdpo"]})
    assert whole.result["weights"] == parts.result["weights"]
    assert whole.column("loss") == parts.column("loss")


def test_every_response_is_scored_once(train: Train, counting: Any) -> None:
    """Over two runs with other settings, a resumed one, and other label noise."""
    file, asked = counting
    with plugins_from(file):
        words = {**SHAPO, "reward": "length", "save-every": 1, "probe.share": 0.0}
        first = train(**words)
        counted = asked()
        assert len(counted) == 2 * (first.result["pairs"]["train"] + first.result["pairs"]["held_out"])
        assert len({tuple(line) for line in counted}) == len(counted)
        train(**words, lr=1e-4, seed=7, **{"robust.k": 2.0, "label-noise": 0.3, "batch-size": 4})
        weights = first.result["weights"]
        (first.path / "result.json").unlink()
        shutil.rmtree(first.path / "checkpoints" / "step-00000002")
        assert resume(first.path, reporter=Heard()).weights == weights
        assert len(asked()) == len(counted)


def test_what_scores_depend_on_makes_them_new(train: Train, tmp_path: Path, pairs: Path) -> None:
    folders = {name: save_classifier(tmp_path / name, seed=seed) for seed, name in ((21, "one"), (22, "other"))}
    untold = save_classifier(tmp_path / "untold", template=None)
    some = write_rows(tmp_path / "some.jsonl", pairs.read_text().splitlines()[:40])
    words = {**SHAPO, "reward": "hf", "reward.model": str(folders["one"]), "max-steps": 1, "probe.share": 0.0}

    def new_files(**changes: Any) -> int:
        before = kept()
        train(**{**words, **changes})
        return len(kept() - before)

    texts = [{"prompt": f"Say {n}.", "chosen": f" {n} .", "rejected": " No ."} for n in range(40)]
    plain = write_rows(tmp_path / "plain.jsonl", texts)
    assert new_files() == 2  # training and held-out pairs
    assert new_files(lr=1e-5, seed=3, reward={"name": "hf", "batch_size": 3}) == 0
    moved = tmp_path / "moved"
    shutil.copytree(folders["one"], moved)
    assert new_files(**{"reward.model": str(moved)}) == 0
    assert new_files(**{"reward.model": str(folders["other"])}) == 2
    assert new_files(**{"reward.sign": -1}) == 2
    assert new_files(reward={"name": "hf", "max_length": 5}) == 2
    assert new_files(data=str(some)) == 2
    assert new_files(data=str(plain)) == 2
    assert new_files(data=str(plain), **{"reward.model": str(untold)}) == 2


def test_damaged_scores_are_made_anew(train: Train, counting: Any) -> None:
    file, asked = counting
    with plugins_from(file):
        before = kept()
        words = {**SHAPO, "reward": "length", "probe.share": 0.0}
        first = train(**words)
        once = len(asked())
        for path in kept() - before:
            content = bytearray(path.read_bytes())
            content[-1] ^= 1  # one bit of one score
            path.write_bytes(bytes(content))
        heard = Heard()
        again = train(report=heard, **words)
        assert len(asked()) == 2 * once
        assert [w for w in heard.warnings if "are corrupt (its content is not what was written); scoring again" in w]
        for path in kept() - before:
            path.write_bytes(path.read_bytes()[:40])
        assert train(**words).column("loss") == again.column("loss") == first.column("loss")
        assert len(asked()) == 3 * once


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("few", r"reward 'length' returned 63 scores for 64 responses, rows \d+ to \d+"),
        ("nan", r"reward 'length' returned nan for a response of row \d+"),
        ("text", r"reward 'length' returned 'good' for a response of row \d+"),
        ("raise", r"reward 'length' failed on rows \d+ to \d+: ZeroDivisionError: by the author"),
    ],
)
def test_a_reward_that_fails_is_named(train: Train, counting: Any, spoil: str, message: str, tmp_path: Path) -> None:
    with plugins_from(counting[0]), pytest.raises(MethodError, match=message):
        train(**SHAPO, reward="length", **{"reward.spoil": spoil, "probe.share": 0.0})
    assert not (tmp_path / "run-1").exists()


def test_scoring_that_was_interrupted_goes_on_where_it_was(
    train: Train, counting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, asked = counting
    for name in ("ROWS_KEPT_TOGETHER", "ROWS_AT_A_TIME"):
        monkeypatch.setattr(scoring, name, 16)
    stop, heard = tmp_path / "asked.stop", Heard()
    stop.write_text("64")  # after two blocks of 16 pairs
    words = {**SHAPO, "reward": "length", "probe.share": 0.0}
    with plugins_from(file):
        with pytest.raises(MethodError, match="ZeroDivisionError: interrupted"):
            train(**words)
        assert len(asked()) == 64
        assert not (tmp_path / "run-1").exists()
        stop.unlink()
        run = train(report=heard, **words)
    count = run.result["pairs"]
    assert len(asked()) == 2 * (count["train"] + count["held_out"])
    assert len({tuple(line) for line in asked()}) == len(asked())
    assert any(f"{count['train']} training pairs scored, 32 of them in an earlier run;" in note for note in heard.notes)


def test_the_runs_own_probe_is_trained_once(train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For the reward and for the neurons, and is not called an earlier run's."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    heard = Heard()
    train(report=heard, **{**SHAPO, "geometry.select": "anti-toxic"})
    assert [note.partition(";")[0] for note in heard.notes if note.startswith("safety probe: ")][-1:] == [
        "safety probe: trained"
    ]
    assert not [note for note in heard.notes if "reused" in note]


def test_scores_of_the_data_that_are_not_used_are_pointed_out(train: Train, scored_pairs: Path, pairs: Path) -> None:
    told = "the data has scores; --reward column uses them"
    for data, reward, is_told in (
        (scored_pairs, "probe", True),
        (scored_pairs, "column", False),
        (pairs, "probe", False),
    ):
        heard = Heard()
        train(report=heard, **SHAPO, data=str(data), reward=reward)
        assert (told in heard.notes) is is_told


def test_a_resumed_run_keeps_its_reward(train: Train, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "classifier")
    run = train(**SHAPO, reward="hf", **{"reward.model": str(folder), "save-every": 1, "probe.share": 0.0})
    (run.path / "result.json").unlink()
    shutil.rmtree(run.path / "checkpoints" / "step-00000002")
    save_classifier(folder, seed=9)
    with pytest.raises(AlignzooError, match="the scores of the reward changed since this run started"):
        resume(run.path, reporter=Heard())
    save_classifier(folder)
    resume(run.path, reporter=Heard())
    assert len(run.metrics) == 2


def test_what_does_not_go_together_is_refused(train: Train, counting: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--reward probe has no effect here: no method of this run needs a reward"):
        train(reward="probe")
    with pytest.raises(UsageError, match=r"--reward.sign: no reward of this run has that option"):
        train(**{"reward.sign": -1})
    twice = require(resolve([Layer("python", {"geometry": "shapo-reward", "robust": "soft-label"})]))
    assert [method.card.name for method in twice.of("robust")] == ["soft-label"], "its own part, not a second one"
    with pytest.raises(
        UsageError, match=r"reward 'probe' needs a safety probe, but --probe.share 0 leaves no rows to train it"
    ):
        train(**SHAPO, **{"probe.share": 0.0})
    lacking = "a method of this run needs scores, but the data has no chosen_score or no rejected_score"
    with pytest.raises(DataError, match=lacking) as found:
        train(**SHAPO, reward="column")
    assert "--reward probe" in str(found.value.hint)
    with pytest.raises(ModelError, match=r"reward model .*nowhere: no such folder"):
        train(**SHAPO, reward="hf", **{"reward.model": str(tmp_path / "nowhere")})
    with pytest.raises(UsageError, match=r"^--reward hf needs --reward.model: hub id or folder"):
        train(**SHAPO, reward="hf")
    assert not list(tmp_path.glob("run-*"))


def test_a_loss_without_an_opposite_label_is_refused(command: Any, az: Az, counting: Any, tmp_path: Path) -> None:
    plugin = ("--plugin", str(counting[0]))
    for words in (("--geometry", "shapo-reward"), ("--robust", "soft-label")):
        refused = az(*command(tmp_path / "out", "--loss", "one-way", *words, *plugin))
        assert refused.returncode == 3
        assert "evaluates the loss under the opposite label, where loss 'one-way'" in refused.stderr
        assert "choose another loss, or leave out --robust soft-label" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_sharpness_is_that_of_the_soft_labels(train: Train, scored_pairs: Path, az: Az, tmp_path: Path) -> None:
    run = train(**SHAPO, data=str(scored_pairs), reward="column")
    done = az("sharpness", str(run.path), "--json", "--radii", "0.1", "--directions", "1")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["objective"] == "dpo under soft-label"


@pytest.mark.slow
def test_two_ranks_score_as_one(
    command: Any, az: Az, start: Start, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_classifier(tmp_path / "classifier", seed=23)
    given = {**SHAPO, "model": make_model(), "reward": "hf", "reward.model": str(folder), "micro-batch-size": 2}
    given |= {"optimizer": "sgd", "probe.share": 0.0, "label-noise": 0.2}
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")
    process = start(*command(tmp_path / "two", **given), launcher=(*two, sys.executable))
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert stderr.count("training pairs scored;") == 1
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))  # nothing kept is found there
    ended: subprocess.CompletedProcess[str] = az(*command(tmp_path / "one", **given))
    assert ended.returncode == 0, ended.stderr
    one, other = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    for here, there in zip(other.timeless(), one.timeless(), strict=True):
        assert here == pytest.approx(there, rel=1e-5, abs=1e-5)
    for name, tensor in one.weights.items():
        assert torch.allclose(other.weights[name], tensor, rtol=1e-5, atol=1e-5)
    assert (other.path / "soft_labels.json").read_text() == (one.path / "soft_labels.json").read_text()


@pytest.mark.slow
def test_two_ranks_divide_the_pairs(
    command: Any, on_two_ranks: OnTwoRanks, counting: Any, tmp_path: Path, make_model: MakeModel
) -> None:
    """Each is scored once, also over a resumed run; a rank that fails tells the other, and both end."""
    file, asked = counting
    data = write_rows(tmp_path / "many.jsonl", preference_rows("train", 700))
    given = {**SHAPO, "model": make_model(), "data": data, "reward": "length", "probe.share": 0.0, "max-steps": 1}
    plugin = ("--plugin", str(file))
    failed = on_two_ranks(*command(tmp_path / "out", *plugin, **given, **{"reward.spoil": "raise on rank 1"}))
    assert failed.returncode == 1
    assert "reward 'length' failed on rows" in failed.stderr
    assert "ZeroDivisionError: by the author" in failed.stderr
    assert not (tmp_path / "out").exists()
    before = len(asked())
    done = on_two_ranks(*command(tmp_path / "out", *plugin, **given))
    assert done.returncode == 0, done.stderr
    pairs = RunFolder(tmp_path / "out").result["pairs"]
    new = asked()[before:]
    assert len({tuple(line[:2]) for line in new}) == len(new) == 2 * (pairs["train"] + pairs["held_out"])
    assert {line[2] for line in new} == {"0", "1"}
    (tmp_path / "out" / "result.json").unlink()
    again = on_two_ranks("run", "--resume", str(tmp_path / "out"), *plugin)
    assert again.returncode == 0, again.stderr
    assert len(asked()) == before + len(new)


@pytest.mark.slow
def test_two_ranks_hear_of_a_probe_that_cannot_be_trained(
    command: Any, on_two_ranks: OnTwoRanks, tmp_path: Path
) -> None:
    ended = on_two_ranks(*command(tmp_path / "out", **SHAPO, **{"probe.share": 0.05}))
    assert ended.returncode == 1
    assert "responses to validate on" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_python_loads_a_reward() -> None:
    assert {card.name for card in alignzoo.list_methods("reward")} >= {"column", "hf", "probe"}
    assert type(alignzoo.load_method("reward", "column", sign=-1)).__name__ == "Column"
