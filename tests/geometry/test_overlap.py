"""What two selections share, against brute force; and the real command."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_analysis.overlap import chance_jaccard, overlap
from in_process import call_main
from safetensors.torch import save_file

from alignzoo.errors import UsageError
from alignzoo.geometry.projections import find_down_projections
from alignzoo.geometry.subspace import SavedSelection, save_selection, select_neurons
from alignzoo.testing.tiny import tiny_model


@pytest.mark.parametrize(("a", "b", "of"), [(2, 3, 6), (1, 1, 4), (4, 5, 6), (0, 2, 5), (6, 6, 6)])
def test_chance_is_the_mean_over_all_draws(a: int, b: int, of: int) -> None:
    draws = [
        len(set(one) & set(other)) / len(set(one) | set(other))
        for one in itertools.combinations(range(of), a)
        for other in itertools.combinations(range(of), b)
    ]
    assert chance_jaccard(a, b, of) == pytest.approx(sum(draws) / len(draws))


def saved(folder: Path, seed: int, share: float = 0.25) -> SavedSelection:
    projections = find_down_projections(tiny_model())
    save_selection(folder, projections, select_neurons(projections, "random", share, seed=seed), {})
    return SavedSelection.read(folder)


def test_overlap_by_hand(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "a", 0), saved(tmp_path / "b", 1)
    sets = [{(name, i) for name, index in which.neurons.items() for i in index.tolist()} for which in (one, other)]
    found = overlap(one, other)
    assert found["neurons"] == [24, 24]
    assert found["of"] == 96
    assert found["shared"] == len(sets[0] & sets[1])
    assert found["jaccard"] == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    assert found["chance"] == pytest.approx(chance_jaccard(24, 24, 96))
    assert [layer["name"] for layer in found["layers"]] == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    assert sum(layer["shared"] for layer in found["layers"]) == found["shared"]
    same = overlap(one, one)
    assert same["jaccard"] == 1
    assert same["chance"] < 0.2


def test_files_that_do_not_say_their_widths_have_no_chance(tmp_path: Path) -> None:
    save_file({"m.10.d": torch.tensor([1]), "m.2.d": torch.tensor([1, 2])}, tmp_path / "selection.safetensors")
    bare = SavedSelection.read(tmp_path / "selection.safetensors")
    found = overlap(bare, bare)
    assert found["chance"] is None
    assert [layer["name"] for layer in found["layers"]] == ["m.2.d", "m.10.d"]


def test_selections_of_other_widths_are_refused(tmp_path: Path) -> None:
    one = saved(tmp_path, 0)
    other = SavedSelection(tmp_path, one.neurons, dict.fromkeys(one.neurons, 40))
    with pytest.raises(UsageError, match=r"has 48 neurons in .* and 40 in"):
        overlap(one, other)


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b").mkdir()
    one, other = saved(tmp_path / "a", 0), saved(tmp_path / "b" / "geometry", 1)
    words = ["probe", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]
    said = call_main([*words, "--json"], capfd)
    assert said.returncode == 0
    found: dict[str, Any] = json.loads(said.stdout)
    assert found == overlap(one, other)
    table = call_main(words, capfd).stdout.splitlines()
    assert table[0].split() == ["neurons", "of", "A", "B", "shared", "Jaccard", "by", "chance"]
    assert table[1].split()[:4] == ["all", "24", "24", str(found["shared"])]
    refusal = call_main([*words, "--out", "x", "--seed", "3"], capfd)
    assert refusal.returncode == 2
    assert "cannot be combined with --seed, --out" in refusal.stderr
    assert "no saved selection in" in call_main(["probe", "--compare", "nowhere", "b"], capfd).stderr
