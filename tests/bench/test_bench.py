"""The bench: what it runs, ranks that differences support, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import sweeping
from alignzoo_bench.folder import Bench, begin, read_bench
from alignzoo_bench.methods import BASE, Entry, chosen_entries, columns_of, unsuitable, world_layer
from alignzoo_bench.page import BEGIN, END, write_page
from alignzoo_bench.ranks import Rank, not_worse_than_best, rank_intervals
from alignzoo_bench.running import number_of_runs, run_defaults, run_tuned
from scipy import stats
from statsmodels.stats.multitest import multipletests

from alignzoo.errors import UsageError
from alignzoo.report import Reporter


def test_overlapping_methods_are_not_ranked() -> None:
    values = {
        "a": dict(enumerate([0.10, 0.12, 0.11, 0.09, 0.13])),
        "b": dict(enumerate([0.11, 0.12, 0.10, 0.12, 0.11])),
        "c": dict(enumerate([0.50, 0.52, 0.51, 0.53, 0.50])),
    }
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    p = [stats.ttest_rel(list(values[x].values()), list(values[y].values())).pvalue for x, y in pairs]
    assert list(multipletests(p, method="holm")[0]) == [False, True, True]
    ranks = rank_intervals(values, higher=False)
    assert ranks == {"a": Rank(1, 2), "b": Rank(1, 2), "c": Rank(3, 3)}
    assert not_worse_than_best(ranks) == ["a", "b"]
    assert rank_intervals(values, higher=True)["c"] == Rank(1, 1)


@pytest.mark.parametrize("values", [{0: 0.2}, {0: 0.2, 1: 0.2}])
def test_one_seed_and_equal_runs_rank_nothing(values: dict[int, float]) -> None:
    other = {seed: value + 0.5 for seed, value in values.items()}
    assert rank_intervals({"a": values, "b": dict(values), "c": other}, higher=True)["a"] == Rank(1, 3)


def test_methods_are_losses_wrappers_and_controllers_that_suit_the_data(tiny_world: str) -> None:
    world = world_layer(tiny_world, {})
    assert "loss" not in world.values
    assert "loss.beta" not in world.values, "methods have their cards' defaults"
    columns = columns_of(world)
    everything = chosen_entries([])
    assert {"dpo", "simpo", "drdpo", "sam"} <= {entry.label for entry in everything}
    assert "plain" not in {entry.label for entry in everything}
    reasons = {entry.label: unsuitable(entry, world, columns) for entry in everything}
    assert reasons["dpo"] is None
    assert "scores" in str(reasons["odpo"])
    with pytest.raises(UsageError, match="simpoo"):
        chosen_entries(["simpoo"])


def bench(world: str, *entries: Entry, trials: int = 0) -> Bench:
    objective = ("tiny-world/asr/validation",) if trials else ()
    return Bench(world, {}, (0, 1), (0.3,), entries, {"odpo": "no scores"}, trials, objective=objective)


@pytest.mark.slow
def test_a_bench_runs_resumes_grows_and_writes_its_page(tiny_world: str, tmp_path: Path) -> None:
    dpo, drdpo = Entry(BASE, "loss", BASE), Entry("drdpo", "robust", "drdpo")
    folder, page = tmp_path / "bench", tmp_path / "bench.md"
    run_defaults(folder, begin(folder, bench(tiny_world, dpo)), sweeping.sweep, reporter=Reporter())
    assert len(sweeping.RAN) == 2
    grown = begin(folder, bench(tiny_world, dpo, drdpo, trials=2))
    run_defaults(folder, grown, sweeping.sweep, reporter=Reporter())
    assert len(sweeping.RAN) == 4, "runs that are there stay"
    assert number_of_runs(grown, [drdpo]) == {"default": 4, "search": 2, "tuned": 2}
    assert run_tuned(folder, grown, [drdpo], sweeping.sweep, reporter=Reporter()) == []
    assert read_bench(folder) == grown
    page.write_text(f"# Bench\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    write_page(folder, page)
    text = page.read_text()
    assert text.startswith("# Bench\n\nBefore.\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    for said in ("| drdpo | ", "label-noise=0.3", "At the cards' defaults", "Not run: `odpo`", "### Cost"):
        assert said in text, said
    assert "At tuned points" in text
    assert "asr/validation" in text.split("At tuned points")[1]
    assert "eval/" not in text
    with pytest.raises(UsageError, match="seeds was"):
        begin(folder, Bench(tiny_world, {}, (0, 1, 2), (0.3,), (dpo,)))
