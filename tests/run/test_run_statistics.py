"""Runs with losses that read the whole vocabulary, embedding gradients, safety labels or progress."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alignzoo_sandbox import preference_rows
from datasets import Dataset
from heard import Heard
from run_helpers import MakeModel, RunFolder, Train, same, write_rows

from alignzoo.data.asked import check_columns
from alignzoo.errors import DataError, IncompatibleError
from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import resolve
from alignzoo.plugin import plugins_from
from alignzoo.report import Reporter
from alignzoo.runs.execute import resume

PLUGIN = Path(__file__).parent / "statistics_plugin.py"
LOSSES = ("reads-kls", "reads-entropies", "reads-collisions", "reads-norms", "reads-safe", "reads-progress")


@pytest.fixture(autouse=True)
def _tiny(words: dict[str, Any], make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(words, "model", str(make_model("llama")))
    monkeypatch.setitem(words, "probe.share", 0.0)
    with plugins_from(PLUGIN):
        yield


def steps(run: RunFolder) -> list[float]:
    return [line[name] for line in run.metrics for name in ("loss", "grad_norm")]


def read(run: RunFolder, loss: str, prefix: str = "") -> list[float]:
    return [line[f"{prefix}loss/{loss}/read"] for line in run.metrics]


@pytest.mark.parametrize(
    ("loss", "adapter"),
    [*((loss, {}) for loss in LOSSES), ("reads-kls", {"lora.r": 2}), ("reads-norms", {"lora.r": 2})],
)
def test_a_run_is_the_same_however_it_is_cut_packed_or_resumed(
    loss: str, adapter: dict[str, Any], train: Train, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"loss": loss, "max_steps": 3, "eval_every": 1, "save_every": 1, **adapter}
    run = train(**given)
    whole = steps(run)
    for cut in ({"micro_batch_size": 8}, {"packing": False}, {"micro_batch_size": 1}):
        assert steps(train(**given, **cut)) == pytest.approx(whole, rel=1e-3, abs=1e-5)
    stopped = tmp_path / "stopped"
    shutil.copytree(run.path, stopped)
    for name in ("model", "checkpoints/step-00000002", "checkpoints/step-00000003"):
        shutil.rmtree(stopped / name)
    (stopped / "result.json").unlink()
    resume(stopped, reporter=Reporter())
    resumed = RunFolder(stopped)
    assert same(resumed.weights, run.weights)
    assert resumed.timeless() == run.timeless()


def test_kl_is_nothing_at_first_and_then_grows(train: Train) -> None:
    heard = Heard()
    run = train(loss="reads-kls", max_steps=4, eval_every=1, report=heard)
    kls = read(run, "reads-kls")
    assert kls[0] == pytest.approx(0, abs=1e-4)
    assert kls[1] > 0
    assert all(value > 0 for value in read(run, "reads-kls", "eval/"))
    assert sum("computed in every step" in note for note in heard.notes) == 1
    assert not any("reference log-probs" in note for note in heard.notes)


def test_an_entropy_is_at_most_one_for_each_token(train: Train) -> None:
    heard = Heard()
    run = train(loss="reads-entropies", eval_every=1, report=heard)
    figures = run.metrics[0]
    assert 0 < figures["loss/reads-entropies/read"] < figures["tokens"]
    assert any("computed in every step" in note for note in heard.notes)


def test_embedding_gradients_need_rows_of_their_own(train: Train) -> None:
    heard = Heard()
    run = train(loss="reads-norms", report=heard)
    assert any("gradients by the input embeddings" in note for note in heard.notes)
    assert min(read(run, "reads-norms")) > 0


def test_progress_of_steps_and_of_evaluations(train: Train) -> None:
    run = train(loss="reads-progress", max_steps=4, eval_every=2)
    assert read(run, "reads-progress") == pytest.approx([0, 0.25, 0.5, 0.75])
    evaluated = [line["eval/loss/reads-progress/read"] for line in run.metrics if "eval/loss" in line]
    assert evaluated == pytest.approx([0.5, 1.0])
    figures = json.loads((run.path / "evaluation.json").read_text())
    assert figures["before"]["eval/loss/reads-progress/read"] == 0.0
    assert figures["after"]["eval/loss/reads-progress/read"] == 1.0


def test_safety_labels_come_from_the_data(train: Train) -> None:
    run = train(loss="reads-safe")
    assert read(run, "reads-safe") == [1.0, 1.0]
    noisy = train(loss="reads-safe", label_noise=0.4, max_steps=4)
    assert min(read(noisy, "reads-safe")) < 1.0


def test_data_without_safety_labels_are_refused_before_the_weights_load(train: Train, tmp_path: Path) -> None:
    rows = preference_rows("train", 40)
    bare = [{name: value for name, value in row.items() if "safe" not in name} for row in rows]
    heard = Heard()
    with pytest.raises(DataError, match="needs safety labels, but the data has no chosen_safe or no rejected_safe"):
        train(loss="reads-safe", data=str(write_rows(tmp_path / "bare.jsonl", bare)), report=heard)
    assert not any("loading" in note for note in heard.notes)


def test_data_with_some_safety_labels_are_refused_and_the_first_row_without_is_named() -> None:
    rows = {"row_id": [7, 9, 12], "response_ids": [[[1], [2]]] * 3, "safe": [[True, False], [True, None], None]}
    with pytest.raises(DataError, match=r"2 of 3 pairs have a response without one; the first is row 9"):
        check_columns({"safety"}, Dataset.from_dict(rows), "pairs", "data.jsonl")
    check_columns((), Dataset.from_dict(rows), "pairs", "data.jsonl")


def test_what_cannot_be_differentiated_twice_is_refused() -> None:
    def refused(launch: str, **settings: Any) -> str:
        recipe = {"loss": "reads-norms", **settings}
        found = resolve([Layer("command line", flatten(recipe, "here"))], distributed=launch)
        assert isinstance(found, list)
        assert isinstance(found[0], IncompatibleError)
        return found[0].message

    assert "sharded weights" in refused("fsdp")
    assert "recomputed activations" in refused("none", **{"activation-checkpointing": True})


@pytest.mark.parametrize("loss", ["reads-kls", "reads-norms"])
def test_in_bf16(loss: str, train: Train) -> None:
    """Near the run in fp32, with the same zero of the KL at first: products are rounded alike for both models."""
    exact, run = train(loss=loss, max_steps=2), train(loss=loss, max_steps=2, precision="bf16")
    if loss == "reads-kls":
        assert read(run, loss)[0] == pytest.approx(0, abs=1e-4)
        assert read(run, loss)[1] == pytest.approx(read(exact, loss)[1], rel=0.3)
    else:
        assert read(run, loss) == pytest.approx(read(exact, loss), rel=0.05)
    assert run.column("loss") == pytest.approx(exact.column("loss"), rel=0.2)
