"""Whole runs on unpaired and ranked data, and of mixtures: the same objective however the rows are shaped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_helpers import MakeModel, RunFolder, Train, plain_rows, same, write_rows

from alignzoo.errors import IncompatibleError
from alignzoo.plugin import plugins_from
from alignzoo.report import Reporter
from alignzoo.runs.execute import resume

LOSSES = """
from alignzoo.contract.loss import LossCard, PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Options, hookimpl


class Binary(PreferenceLoss):
    def rewards(self, batch):
        policy = batch.of_role(0)
        return 0.1 * (policy.logps - policy.ref_logps)

    def __call__(self, batch):
        return F.softplus(-batch.labels * self.rewards(batch))


class Mismatched(Binary):
    def __call__(self, batch):
        policy, other = batch.of_role(0), batch.of_role(1)
        shift = 0.1 * (other.logps - other.ref_logps).detach().mean()
        return F.softplus(-policy.labels * (0.1 * (policy.logps - policy.ref_logps) - shift))


class Listed(PreferenceLoss):
    def rewards(self, batch):
        return 0.1 * (batch.logps - batch.ref_logps)

    def __call__(self, batch):
        rewards, lists = self.rewards(batch), int(batch.prompt.max()) + 1
        values = []
        for one in range(lists):
            scores = rewards[batch.prompt == one]
            values.append(sum(torch.logsumexp(scores[i:], 0) - scores[i] for i in range(len(scores) - 1)))
        return torch.stack(values)


class Imitate(PreferenceLoss):
    def rewards(self, batch):
        return batch.logps

    def __call__(self, batch):
        return -batch.logps / batch.lengths


def card(name, reads, needs=("reference",), **facts):
    words = {"summary": name, "formula": "x", "options": Options, "api": 2}
    return LossCard(name=name, target=f"{__name__}:{name.capitalize()}", reads=reads, needs=frozenset(needs),
                    **words, **facts)


@hookimpl
def alignzoo_methods():
    return [
        card("binary", "responses", ("reference", "labels")),
        card("mismatched", "responses", ("reference", "labels", "mismatched"), batch_coupled=True),
        card("listed", "lists", swaps=False),
        card("imitate", "chosen", (), swaps=False),
    ]
"""
ROWS = 24


@pytest.fixture
def losses(tmp_path: Path) -> Iterator[None]:
    """Losses that read responses, lists and chosen responses, from a plugin file."""
    path = tmp_path / f"losses_{tmp_path.name}.py"
    path.write_text(LOSSES)
    with plugins_from(path):
        yield


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """The same rows as pairs, as unpaired rows and as lists of two."""
    pairs = plain_rows(ROWS)
    unpaired = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs
        for side in ("chosen", "rejected")
    ]
    ranked = [{"prompt": row["prompt"], "responses": [row["chosen"], row["rejected"]]} for row in pairs]
    shapes = {"pairs": pairs, "unpaired": unpaired, "ranked": ranked}
    return {name: str(write_rows(tmp_path / f"{name}.jsonl", rows)) for name, rows in shapes.items()}


@pytest.fixture
def words(words: dict[str, Any], make_model: MakeModel) -> dict[str, Any]:
    """All rows in every step, so that the shapes give the same one."""
    return {**words, "model": str(make_model()), "probe.share": 0.0, "eval-share": 0.0, "batch-size": ROWS}


def steps(run: RunFolder) -> list[float]:
    return [line[name] for line in run.metrics for name in ("loss", "grad_norm")]


@pytest.mark.usefixtures("losses")
def test_unpaired_rows_give_the_steps_of_their_pairs(train: Train, data: dict[str, str]) -> None:
    pairs = train(loss="binary", data=data["pairs"])
    unpaired = train(loss="binary", data=data["unpaired"], batch_size=2 * ROWS)
    assert steps(unpaired) == pytest.approx(steps(pairs), rel=1e-5)
    assert steps(pairs)[0] != pytest.approx(steps(pairs)[2], rel=1e-3), "the second step is elsewhere"


@pytest.mark.usefixtures("losses")
def test_lists_of_two_give_the_steps_of_dpo_on_pairs(train: Train, data: dict[str, str]) -> None:
    dpo = train(loss="dpo", data=data["pairs"], loss_beta=None, **{"loss.beta": 0.1})
    for shape in ("pairs", "ranked"):
        assert steps(train(loss="listed", data=data[shape])) == pytest.approx(steps(dpo), rel=1e-5)
    assert steps(train(loss="dpo", data=data["ranked"], **{"loss.beta": 0.1})) == pytest.approx(steps(dpo), rel=1e-5)


@pytest.mark.usefixtures("losses")
@pytest.mark.parametrize("robust", [None, "drdpo"])
def test_a_coupled_loss_with_mismatched_responses_is_cut_as_one_likes(
    train: Train, data: dict[str, str], robust: str | None
) -> None:
    """Its steps are those of one micro-batch, packed and padded, with the reference cached or not."""
    given: dict[str, Any] = {"loss": "mismatched", "robust": robust, "data": data["unpaired"], "batch_size": 16}
    whole = steps(train(**given, micro_batch_size=16))
    for cut in ({"micro_batch_size": 4}, {"packing": False}, {"reference_cache": False}):
        assert steps(train(**given, **{"micro_batch_size": 8, **cut})) == pytest.approx(whole, rel=1e-4)


@pytest.mark.usefixtures("losses")
def test_evaluated_and_resumed_on_unpaired_rows(train: Train, data: dict[str, str], tmp_path: Path) -> None:
    given: dict[str, Any] = {"loss": "mismatched", "geometry": "sam", "data": data["unpaired"], "eval_share": 0.25}
    run = train(**given, batch_size=8, max_steps=3, eval_every=1, save_every=1, label_noise=0.2)
    figures = json.loads((run.path / "evaluation.json").read_text())
    assert figures["before"]["eval/loss"] > figures["after"]["eval/loss"]
    parts = run.result["pairs"]
    assert parts["train"] + parts["held_out"] == 2 * ROWS
    assert parts["held_out"] > 0
    stopped = tmp_path / "stopped"
    shutil.copytree(run.path, stopped)
    for name in ("model", "checkpoints/step-00000002", "checkpoints/step-00000003"):
        shutil.rmtree(stopped / name)
    (stopped / "result.json").unlink()
    resume(stopped, reporter=Reporter())
    resumed = RunFolder(stopped)
    assert same(resumed.weights, run.weights)
    assert resumed.timeless() == run.timeless()


@pytest.mark.usefixtures("losses")
def test_a_mixture_logs_its_terms_and_adds_them_up(train: Train, data: dict[str, str]) -> None:
    weighted = {"loss": ["dpo", "imitate"], "loss.imitate.weight": 0.1}
    run = train(**weighted, data=data["pairs"])
    cut = train(**weighted, data=data["pairs"], micro_batch_size=ROWS)
    assert run.result["sentence"].startswith("--loss dpo --loss imitate --loss.imitate.weight 0.1")
    for line in run.metrics:
        assert line["loss"] == pytest.approx(line["loss/dpo/value"] + 0.1 * line["loss/imitate/value"], rel=1e-5)
    assert steps(run) == pytest.approx(steps(cut), rel=1e-5)
    alone = train(loss="dpo", data=data["pairs"])
    assert not same(alone.weights, run.weights)


@pytest.mark.usefixtures("losses")
def test_data_of_a_shape_that_the_loss_cannot_read_is_refused_before_any_weight(
    train: Train, data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignzoo.session import inputs

    monkeypatch.setattr(inputs, "policy_of", None)
    with pytest.raises(IncompatibleError, match="dpo"):
        train(loss="dpo", data=data["unpaired"])
