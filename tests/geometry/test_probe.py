"""The safety probe: it finds a planted direction, reports honestly, and survives on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import pair_rows, tiny_model

from alignzoo.errors import AlignzooError, DataError, ModelError
from alignzoo.geometry.probe import Probe, _auc, fit_probe, mean_hidden_states
from alignzoo.report import Progress

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
    sequences = [[*row["prompt_ids"], *row["chosen_ids"], 0, 0] for row in pair_rows(6)]  # 0 pads, and may be a token
    together = mean_hidden_states(model, sequences, bar=Progress())
    for row, ids in enumerate(sequences):
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        torch.testing.assert_close(together[row], states.mean(0).detach(), rtol=1e-4, atol=1e-5)


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
    with pytest.raises(ModelError, match="hidden size 12, the model has 64"):
        Probe.load(tmp_path, hidden=64)
    file = tmp_path / "probe.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(AlignzooError, match="damaged"):
        Probe.load(tmp_path, hidden=12)
