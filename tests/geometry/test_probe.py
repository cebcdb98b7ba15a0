"""The safety probe: it finds a planted direction, reports honestly, and survives on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from heard import Heard
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.errors import AlignzooError, DataError, ModelError, UsageError
from alignzoo.probe import fit as probe_run
from alignzoo.probe.fit import cached_probe, part_digest, train_probe
from alignzoo.probe.probe import (
    Probe,
    _auc,
    calibration,
    fit_probe,
    hidden_features,
    layer_indices,
)
from alignzoo.report import Progress, Reporter
from alignzoo.testing.tiny import pair_rows, random_rows, tiny_model

Part = tuple[torch.Tensor, torch.Tensor]


def planted(count: int, *, seed: int, strength: float = 2.0) -> Part:
    """Features whose class shifts them along a fixed direction, in very different units per dimension."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    features = torch.randn(count, 12, generator=generator)
    features[:, 3] += strength * (labels - 0.5)
    scales = torch.tensor([10.0 ** (i % 4 - 2) for i in range(12)])
    return features * scales + 5, labels


def test_finds_the_planted_direction() -> None:
    probe = fit_probe(planted(400, seed=0), planted(200, seed=1), {})
    standardised = probe.direction * torch.tensor([10.0 ** (i % 4 - 2) for i in range(12)])
    assert int(standardised.abs().argmax()) == 3
    assert standardised[3] > 0, "from safe (0) to unsafe (1)"
    assert probe.facts["held_out_auc"] > 0.85
    assert probe.facts["held_out_accuracy"] > 0.75


def test_the_two_rows_are_the_head_of_a_two_class_softmax() -> None:
    probe = fit_probe(planted(400, seed=0), planted(200, seed=1), {})
    features, labels = planted(200, seed=1)
    logits = features @ probe.weight.T + probe.bias
    accuracy = float((logits.argmax(-1) == labels).double().mean())
    assert accuracy == pytest.approx(probe.facts["held_out_accuracy"], abs=0.01)


def test_without_signal_the_held_out_auc_is_chance() -> None:
    probe = fit_probe(planted(400, seed=2, strength=0), planted(2000, seed=3, strength=0), {})
    assert abs(probe.facts["held_out_auc"] - 0.5) < 0.06


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auc_is_the_share_of_rightly_ordered_pairs(rows: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(score) for score, _ in rows])
    labels = torch.tensor([int(label) for _, label in rows])
    unsafe, safe = scores[labels == 1], scores[labels == 0]
    differences = unsafe[:, None] - safe[None]
    brute = ((differences > 0).double() + 0.5 * (differences == 0).double()).mean()
    assert _auc(scores, labels) == pytest.approx(float(brute))


def test_one_class_only_is_an_error_that_counts() -> None:
    features, labels = planted(50, seed=0)
    with pytest.raises(DataError, match="0 safe and 50 unsafe"):
        fit_probe((features, torch.ones_like(labels)), planted(20, seed=1), {})


def test_features_are_means_over_tokens_whatever_the_batching() -> None:
    model = tiny_model(dtype=torch.float32)
    sequences = [
        [*row["prompt_ids"], *row["response_ids"][0], 0, 0] for row in pair_rows(6)
    ]  # 0 pads, and may be a token
    [together] = hidden_features(model, sequences, layers=[2], pooling="mean", bar=Progress())
    for row, ids in enumerate(sequences):
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        torch.testing.assert_close(together[row], states.mean(0).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt-neox", "gpt2", "gemma3"])
def test_features_of_every_layer_and_pooling(family: str) -> None:
    model = tiny_model(family, dtype=torch.float32)
    sequences = [[*row["prompt_ids"], *row["response_ids"][0], 0, 0] for row in pair_rows(5)]
    poolings: dict[Any, Callable[[torch.Tensor], torch.Tensor]] = {
        "mean": lambda states: states.mean(0),
        "last": lambda states: states[-1],
        "max": lambda states: states.amax(0),
    }
    for pooling, pool in poolings.items():
        found = hidden_features(model, sequences, layers=[0, 1, 2], pooling=pooling, bar=Progress())
        for layer, features in enumerate(found):
            for row, ids in enumerate(sequences):
                states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
                torch.testing.assert_close(features[row], pool(states.detach()), rtol=1e-4, atol=1e-5)


def test_layers_by_words() -> None:
    assert layer_indices("last", 4) == [4]
    assert layer_indices("all", 4) == [1, 2, 3, 4]
    assert layer_indices("0,-1, 2,4", 4) == [0, 2, 4]
    assert layer_indices("-5", 4) == [0]
    for words in ("first", "5", "-6", "1.5", ""):
        with pytest.raises(UsageError, match="--layers"):
            layer_indices(words, 4)


def test_calibration_by_hand() -> None:
    found = calibration(torch.tensor([0.0, 0.05, 0.92, 1.0]), torch.tensor([0, 1, 1, 1]))
    assert found.curve == [
        {"count": 2, "stated": pytest.approx(0.025), "observed": 0.5},
        {"count": 2, "stated": pytest.approx(0.96), "observed": 1.0},
    ]
    assert found.ece == pytest.approx((0.475 + 0.04) / 2)
    assert found.brier == pytest.approx((0 + 0.95**2 + 0.08**2 + 0) / 4)


def test_probabilities_that_are_true_are_calibrated() -> None:
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(20000, generator=draw)
    labels = (torch.rand(20000, generator=draw) < p).long()
    assert calibration(p, labels).ece < 0.02
    assert calibration(p, labels).brier == pytest.approx(1 / 6, abs=0.01)
    assert calibration(p.square(), labels).ece > 0.1


def test_of_several_layers_the_best_by_validation_is_taken() -> None:
    model = tiny_model(dtype=torch.float32)
    parts = [Dataset.from_list(pair_rows(16, seed=seed)) for seed in (0, 1)]
    probe = train_probe(model, *parts, report=Reporter(), facts={"seed": 0}, layers="0,1,2", pooling="last")
    rows = probe.facts["layers"]
    assert [row["layer"] for row in rows] == [0, 1, 2]
    best = max(rows, key=lambda row: row["held_out_auc"])
    assert probe.facts["held_out_auc"] == best["held_out_auc"]
    assert probe.facts["pooling"] == "last"
    alone = train_probe(model, *parts, report=Reporter(), facts={}, layers=str(probe.facts["layer"]), pooling="last")
    assert torch.equal(alone.weight, probe.weight)
    assert "layers" not in alone.facts


LISTS = random_rows([3, 2, 4, 2, 3, 2, 2, 3, 2, 4])
SOURCES: dict[str, tuple[list[dict[str, Any]], list[list[int | None]]]] = {
    "safe": (
        [{**row, "safe": [i % 2 == 0, *[False] * (len(row["response_ids"]) - 1)]} for i, row in enumerate(LISTS)],
        [[i % 2, *[1] * (len(row["response_ids"]) - 1)] for i, row in enumerate(LISTS)],
    ),
    "order": (LISTS, [[0, *[None] * (len(row["response_ids"]) - 2), 1] for row in LISTS]),
    "label": (
        [{**row, "label": 1 - 2 * (i % 2)} for i, row in enumerate(random_rows([1] * 10))],
        [[i % 2] for i in range(10)],
    ),
}
"""Rows by where their safety comes from; of each response 0 (safe), 1 (unsafe) or None (neither is known)."""


@pytest.mark.parametrize("source", SOURCES)
def test_a_probe_of_responses_by_their_flags_labels_or_order(source: str) -> None:
    """The features of the known responses, fitted to their labels; the others are not read."""
    rows, labels = SOURCES[source]
    known = [
        ([*row["prompt_ids"], *response], label)
        for row, of_row in zip(rows, labels, strict=True)
        for response, label in zip(row["response_ids"], of_row, strict=True)
        if label is not None
    ]
    model, part = tiny_model(dtype=torch.float32), Dataset.from_list(rows)
    [features] = hidden_features(model, [ids for ids, _ in known], layers=[2], pooling="mean", bar=Progress())
    wanted = (features, torch.tensor([label for _, label in known]))
    report = Heard()
    found = train_probe(model, part, part, report=report, facts={})
    expected = fit_probe(wanted, wanted, {})
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)
    assert found.facts["labels"] == source
    assert any("no safety labels" in note for note in report.notes) is (source != "safe")


def test_other_tokens_or_labels_are_other_data() -> None:
    def of(rows: list[dict[str, Any]]) -> str:
        return part_digest(Dataset.from_list(rows))

    safe, label, order = (SOURCES[source][0] for source in ("safe", "label", "order"))
    moved = [{**row, "response_ids": row["response_ids"][::-1]} for row in order]
    split = [{**row, "response_ids": [*row["response_ids"][:-1], row["response_ids"][-1][:-1]]} for row in order]
    turned = [{**row, "label": -row["label"]} for row in label]
    assert of(order) == of([{**row, "row_id": 9, "score": [0.0]} for row in order])
    assert len({of(rows) for rows in (safe, label, turned, order, moved, split)}) == 6


def test_saved_and_read_back(tmp_path: Path) -> None:
    probe = fit_probe(planted(100, seed=0), planted(50, seed=1), {"model": "x"})
    probe.save(tmp_path)
    again = Probe.load(tmp_path, hidden=12)
    assert torch.equal(again.weight, probe.weight)
    assert again.facts == probe.facts


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(AlignzooError, match="no probe in"):
        Probe.load(tmp_path / "nowhere", hidden=12)
    fit_probe(planted(100, seed=0), planted(50, seed=1), {}).save(tmp_path)
    with pytest.raises(ModelError, match="has hidden size 12, but the model has 64"):
        Probe.load(tmp_path, hidden=64)
    file = tmp_path / "probe.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(AlignzooError, match="damaged"):
        Probe.load(tmp_path, hidden=12)
    fit_probe(planted(100, seed=0), planted(50, seed=1), {}).save(tmp_path)
    for damage in ("[]", "7", "{", ""):
        (tmp_path / "probe.json").write_text(damage)
        with pytest.raises(AlignzooError, match="damaged"):
            Probe.load(tmp_path, hidden=12)


Cached = Callable[[], tuple[Probe, Heard]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "probes"


@pytest.fixture
def cached(cache: Path) -> Cached:
    """The probe of always the same weights and pairs, and what was said about it."""
    model = tiny_model(dtype=torch.float32)
    parts = [Dataset.from_list(pair_rows(12, seed=seed)) for seed in (0, 1)]

    def probe() -> tuple[Probe, Heard]:
        report = Heard()
        return cached_probe(model, parts[0], parts[1], report=report), report

    return probe


def _is_whole(cache: Path) -> bool:
    """One probe, and nothing that its publishing left behind."""
    [folder] = cache.iterdir()
    return {path.name for path in folder.iterdir()} == {"probe.safetensors", "probe.json"}


def test_a_probe_is_trained_once(cached: Cached, cache: Path) -> None:
    first, report = cached()
    assert "trained" in report.notes[-1]
    again, report = cached()
    assert "reused" in report.notes[-1]
    assert torch.equal(first.weight, again.weight)
    assert not report.warnings
    assert _is_whole(cache)


@pytest.mark.parametrize("damage", ["cut", "no-facts", "other-facts", "not-json", "empty-folder", "file"])
def test_a_damaged_probe_in_the_cache_is_trained_again(damage: str, cached: Cached, cache: Path) -> None:
    first, _ = cached()
    [folder] = cache.iterdir()
    weights, facts = folder / "probe.safetensors", folder / "probe.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-20])
    elif damage in ("no-facts", "other-facts", "not-json"):
        facts.write_text({"no-facts": "{}", "other-facts": "[1]", "not-json": '{"labels"'}[damage])
    else:
        weights.unlink()
        facts.unlink()
    if damage == "file":
        folder.rmdir()
        folder.write_text("")
    probe, report = cached()
    [warning] = report.warnings
    assert str(folder) in warning
    assert "training a new one" in warning
    assert torch.equal(probe.weight, first.weight)
    assert _is_whole(cache)
    assert not cached()[1].warnings


def test_of_two_runs_at_once_the_faster_ones_probe_is_kept(
    cached: Cached, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_probe = probe_run.train_probe

    def overtaken(*given: Any, **words: Any) -> Probe:
        mine = train_probe(*given, **words)
        monkeypatch.setattr(probe_run, "train_probe", train_probe)
        cached()
        [folder] = cache.iterdir()
        Probe(mine.weight, mine.bias, {**mine.facts, "winner": True}).save(folder)
        return mine

    monkeypatch.setattr(probe_run, "train_probe", overtaken)
    probe, report = cached()
    assert probe.facts["winner"]
    assert not report.warnings
    assert _is_whole(cache)
    assert cached()[0].facts["winner"]


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(
    cached: Cached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "file"))
    probe, report = cached()
    assert probe.facts["held_out_responses"] == 24
    [warning] = report.warnings
    assert "cannot cache the probe" in warning
    assert "ALIGNZOO_CACHE" in warning
