"""What is said of the soft labels that a run trains on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from heard import Heard

from alignzoo.reward.histogram import note_soft_labels


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.6, 0.7, 0.4, 0.55], []),
        ([0.5, 0.5], []),
        ([0.4, 0.3, 0.7], ["contradicts 66.7% of the data's labels"]),
        ([0.95] * 9 + [0.5], ["nearly binary"]),
        ([0.95] * 8 + [0.5] * 2, []),
        ([0.01, 0.02, 0.99], ["its sign", "raise the wrapper's temperature"]),
    ],
)
def test_labels_that_are_inverted_or_nearly_binary_are_warned_of(
    labels: list[float], said: list[str], tmp_path: Path
) -> None:
    heard = Heard()
    note_soft_labels(torch.tensor(labels), tmp_path, heard)
    assert len(heard.warnings) == len(said)
    assert all(part in warning for part, warning in zip(said, heard.warnings, strict=True))
    facts = json.loads((tmp_path / "soft_labels.json").read_text())
    assert facts["pairs"] == sum(facts["counts"]) == len(labels)
