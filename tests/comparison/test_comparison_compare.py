"""Groups compared figure by figure: baselines, blocks, caveats, cost and the Pareto front."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comparison_helpers import ASR, BROKEN, REFUSAL, evaluated, group, write_run

from alignzoo.comparison.compare import compare
from alignzoo.comparison.cost import cost_rows
from alignzoo.comparison.figures import facts, figures_of
from alignzoo.comparison.front import front
from alignzoo.comparison.groups import Group
from alignzoo.comparison.results import Comparison, FigureTable
from alignzoo.comparison.statistics import difference, holm, over_seeds
from alignzoo.errors import UsageError
from alignzoo.records import read_run

DPO, SAM, NEW = [0.40, 0.44, 0.38], [0.30, 0.31, 0.33], [0.41, 0.43, 0.39]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[Group]:
    """Three methods over three seeds; the third has no seed 1."""
    folder = tmp_path_factory.mktemp("compare")
    found = []
    for label, rates in (("dpo", DPO), ("sam", SAM), ("new", NEW)):
        geometry = "sam" if label == "sam" else "plain"
        figures = [{"eval/loss": 0.5, ASR: rate, REFUSAL: 0.2, "eval/rewards/accuracies": 0.9} for rate in rates]
        runs = {
            seed: write_run(folder / f"{label}-{seed}", figures[seed], identity=f"{seed}", seed=seed, geometry=geometry)
            for seed in range(3)
            if (label, seed) != ("new", 1)
        }
        found.append(group(label, runs))
    return found


def table(comparison: Comparison, name: str, block: str = "") -> FigureTable:
    [found] = [one for one in comparison.tables if (one.facts.name, one.block) == (name, block)]
    return found


def test_each_figure_has_means_and_differences_with_holm_over_the_table(groups: list[Group]) -> None:
    comparison = compare(groups)
    assert [one.facts.name for one in comparison.tables] == [ASR, REFUSAL, "eval/rewards/accuracies"]
    assert comparison.figures_left_out == ("eval/loss",)
    found = table(comparison, ASR)
    assert [row.group for row in found.rows] == ["dpo", "sam", "new"]
    base, sam, new = found.rows
    assert (found.baseline, base.difference) == ("dpo", None)
    assert base.figure == over_seeds(dict(enumerate(DPO)))
    expected = [
        difference(dict(enumerate(SAM)), dict(enumerate(DPO))),
        difference({0: 0.41, 2: 0.39}, {0: 0.40, 2: 0.38}),
    ]
    t_tests = holm([one.t for one in expected if one is not None])
    for row, alone, t in zip((sam, new), expected, t_tests, strict=True):
        assert row.difference is not None
        assert alone is not None
        assert (row.difference.over_seeds, row.difference.t) == (alone.over_seeds, t)
    assert json.loads(json.dumps(comparison.to_dict()))["tables"][0]["rows"][1]["difference"]["over_seeds"]["mean"] < 0


def test_a_missing_seed_is_said(groups: list[Group]) -> None:
    assert "new lacks seed 1; its differences are paired over the common seeds 0, 2" in compare(groups).warnings
    of_new = compare(groups, baseline="new")
    assert (
        "new lacks seed 1; as the baseline it is compared over the seeds that others share with it" in of_new.warnings
    )
    assert table(of_new, ASR).rows[0].difference is not None
    assert "with 2 seeds, the Wilcoxon and permutation tests cannot give less than p = 0.5" in of_new.warnings


def test_a_group_compared_with_itself_does_not_differ(groups: list[Group]) -> None:
    again = Group("again", groups[0].runs)
    comparison = compare([groups[0], again])
    for one in comparison.tables:
        found = one.rows[1].difference
        assert found is not None
        assert found.zero
        assert found.t.p == found.wilcoxon.p == found.permutation.p == found.t.adjusted == 1.0


def test_one_seed_is_said_to_prove_nothing(groups: list[Group]) -> None:
    alone = [Group(one.label, {0: one.runs[0]}) for one in groups]
    assert compare(alone).warnings == ("every group has one seed only, which proves nothing: no interval and no test",)
    mixed = compare([groups[0], alone[1]])
    assert "sam: one seed only, which proves nothing: no interval and no test" in mixed.warnings
    other = Group("other", {9: groups[1].runs[0]})
    apart = compare([alone[0], other])
    assert any("other lacks seed 0; it shares no seed with the baseline" in sentence for sentence in apart.warnings)
    assert table(apart, ASR).rows[1].difference is None


def test_blocks_are_compared_within(groups: list[Group]) -> None:
    dpo, sam, new = groups
    blocks = [
        Group("dpo", dpo.runs, block="noise=0"),
        Group("sam", sam.runs, block="noise=0"),
        Group("sam", new.runs, block="noise=1"),
    ]
    comparison = compare(blocks, baseline="dpo")
    assert comparison.groups == {"noise=0": ("dpo", "sam"), "noise=1": ("sam",)}
    assert table(comparison, ASR, "noise=0").baseline == "dpo"
    assert table(comparison, ASR, "noise=1").baseline is None
    assert "noise=1 has no group 'dpo', so it has no differences" in comparison.warnings


def test_figures_are_chosen_by_pattern(groups: list[Group]) -> None:
    chosen = compare(groups, figures=["eval/loss", "sandbox/*"])
    assert [one.facts.name for one in chosen.tables] == ["eval/loss", ASR, REFUSAL]
    with pytest.raises(UsageError, match="no figure matches 'sandbox/ars/test'") as error:
        compare(groups, figures=["sandbox/ars/test"])
    assert f"did you mean {ASR}" in str(error.value.hint)
    with pytest.raises(UsageError, match="'simpo' is none of the groups"):
        compare(groups, baseline="simpo")
    with pytest.raises(UsageError, match="no groups"):
        compare([])


def test_the_seeds_that_a_difference_needs_can_be_asked_for(groups: list[Group]) -> None:
    asked = table(compare(groups[:2], detect=0.01), ASR).rows[1].difference
    observed = table(compare(groups[:2]), ASR).rows[1].difference
    assert asked is not None
    assert observed is not None
    assert (asked.seeds_needed or 0) > (observed.seeds_needed or 0)


@pytest.mark.parametrize(
    ("name", "label", "better", "axis"),
    [
        ("world2/asr/ood", "attack success, ood", "lower", "safety"),
        ("world2/refusal/borderline", "over-refusal, borderline", "lower", "over-refusal"),
        ("sandbox/broken/test", "broken answers, test", "lower", "capability"),
        ("suite/xstest/over_refusal/keywords", "over-refusal, xstest, keywords", "lower", "over-refusal"),
        ("suite/harmbench+gcg/attack_success", "attack success, harmbench+gcg", "lower", "safety"),
        ("task/arc_easy/acc,none", "arc_easy, acc", "higher", "capability"),
        ("task/wikitext/word_perplexity,none", "wikitext, word_perplexity", "lower", "capability"),
        ("eval/rewards/accuracies", "preference accuracy", "higher", "held-out"),
        ("eval/loss", "objective", None, "held-out"),
        ("mine/stars", "mine/stars", None, None),
    ],
)
def test_what_figures_say(name: str, label: str, better: str | None, axis: str | None) -> None:
    found = facts(name)
    assert (found.label, found.better, found.axis) == (label, better, axis)


def test_figures_of_an_evaluation_stand_beside_those_of_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {ASR: 0.1, "mine/ratio": float("nan")})
    evaluated(run, digest="a")
    assert figures_of(read_run(run)) == {ASR: 0.1, "suite/xstest/over_refusal/keywords": 0.5, "task/arc/acc,none": 0.25}


def test_what_runs_cost(groups: list[Group]) -> None:
    dpo, sam, new = cost_rows(groups)
    assert dpo.seconds == over_seeds({0: 1.0, 1: 1.0, 2: 1.0})
    assert dpo.wall == over_seeds({0: 4.0, 1: 4.0, 2: 4.0})
    assert dpo.tokens_per_second == over_seeds({0: 200.0, 1: 200.0, 2: 200.0})
    assert (dpo.passes, sam.passes) == (1, 2)
    assert new.seconds is not None
    assert new.seconds.n == 2


def rates(asr: float, refusal: float, broken: float) -> dict[str, dict[int, float]]:
    return {ASR: {0: asr, 1: asr}, REFUSAL: {0: refusal, 1: refusal}, BROKEN: {0: broken, 1: broken}}


def test_the_front_by_hand() -> None:
    found = front(
        "",
        {
            "safe": rates(0.1, 0.4, 0.0),
            "kind": rates(0.5, 0.1, 0.0),
            "worse": rates(0.5, 0.2, 0.0),  # than kind, and no better anywhere
            "same": rates(0.1, 0.4, 0.0),  # as safe: neither dominates the other
            "worst": rates(0.9, 0.9, 0.9),
        },
        [facts(name) for name in (ASR, REFUSAL, BROKEN)],
    )
    assert {row.group: row.dominated_by for row in found} == {
        "safe": (),
        "kind": (),
        "worse": ("kind",),
        "same": (),
        "worst": ("safe", "kind", "worse", "same"),
    }
    assert found[0].values["safety"] == over_seeds({0: 0.9, 1: 0.9})
    assert list(found[0].values) == ["safety", "over-refusal", "capability"]


def test_an_axis_is_the_mean_of_the_rates_that_all_groups_have() -> None:
    ood, perplexity = "sandbox/asr/ood", "task/wikitext/word_perplexity,none"
    one = {ASR: {0: 0.2}, ood: {0: 0.4}, REFUSAL: {0: 0.1}, perplexity: {0: 20.0}}
    other = {ASR: {0: 0.2}, ood: {0: 0.2}, REFUSAL: {0: 0.1}, perplexity: {0: 20.0}}
    figures = [facts(name) for name in one]
    found = front("", {"one": one, "other": other}, figures)
    assert found[0].values["safety"].mean == pytest.approx(0.7)
    assert list(found[0].values) == ["safety", "over-refusal"]
    without = {name: values for name, values in other.items() if name != ood}
    assert front("", {"one": one, "other": without}, figures)[0].values["safety"].mean == pytest.approx(0.8)
    assert front("", {"one": {ASR: {0: 0.2}}}, figures) == []
