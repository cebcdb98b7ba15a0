"""Runs are grouped by everything but their seed, labelled by what differs, and compared only if they may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparison_helpers import ASR, evaluated, group, write_run, write_sweep

from alignzoo.comparison.comparable import differences
from alignzoo.comparison.compare import compare
from alignzoo.comparison.groups import Group, find_group, groups_of, unfinished
from alignzoo.errors import UsageError


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    axes = {"loss": ["dpo", "simpo"], "robust": ["none", "drdpo"], "label-noise": [0, 0.2]}
    return write_sweep(tmp_path_factory.mktemp("groups") / "sweep", axes, 2, lambda point, seed: {ASR: 0.1})


def seen(groups: list[Group]) -> list[tuple[str, str, list[int]]]:
    return [(group.label, group.block, list(group.runs)) for group in groups]


def test_a_sweep_has_a_group_for_each_point_and_a_block_for_each_noise(sweep: Path) -> None:
    groups = groups_of([sweep])
    assert seen(groups) == [
        (label, f"label-noise={noise}", [0, 1])
        for label in ("dpo", "dpo drdpo", "simpo", "simpo drdpo")
        for noise in (0, 0.2)
    ]
    assert groups[3].values == {"loss": "dpo", "robust": "drdpo", "label-noise": 0.2}
    assert groups[3].name == "dpo drdpo (label-noise=0.2)"


def test_a_further_word_divides_into_blocks(sweep: Path) -> None:
    groups = groups_of([sweep], by=["loss"])
    assert seen(groups)[0] == ("none", "loss=dpo label-noise=0", [0, 1])
    assert {group.label for group in groups} == {"none", "drdpo"}
    with pytest.raises(UsageError, match="no value of 'los'") as error:
        groups_of([sweep], by=["los"])
    assert "did you mean loss" in str(error.value.hint)


def test_a_group_is_found_by_label_or_values(sweep: Path) -> None:
    groups = groups_of([sweep])
    assert find_group(groups, "dpo drdpo") == "dpo drdpo"
    assert find_group(groups, "robust=drdpo,loss=simpo") == "simpo drdpo"
    assert find_group(groups, "loss=dpo robust=none") == "dpo"
    with pytest.raises(UsageError, match="several groups: dpo drdpo, simpo drdpo"):
        find_group(groups, "robust=drdpo")
    with pytest.raises(UsageError, match="none of the groups"):
        find_group(groups, "loss=ipo")


def test_missing_cells_of_a_sweep_are_counted(sweep: Path, tmp_path: Path) -> None:
    other = write_sweep(tmp_path / "other", {"loss": ["dpo", "simpo"]}, 2, lambda point, seed: {ASR: 0.1})
    (other / "runs" / "cell-0" / "result.json").unlink()  # dpo at seed 0, the first run of all
    assert seen(groups_of([other])) == [("dpo", "", [1]), ("simpo", "", [0, 1])]
    assert unfinished([sweep, other]) == [f"{other}: 3 of 4 runs are finished; 1 stopped"]


def test_runs_are_grouped_by_all_but_the_seed_and_labelled_by_what_differs(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{loss}-{lr}-{seed}", {ASR: 0.1}, loss=loss, lr=lr, seed=seed, keep_checkpoints=seed + 1)
        for loss, lr in (("dpo", 1e-4), ("dpo", 1e-3), ("simpo", 1e-4))
        for seed in (0, 1)
    ]
    assert seen(groups_of(runs)) == [
        ("dpo lr=0.0001", "", [0, 1]),
        ("dpo lr=0.001", "", [0, 1]),
        ("simpo lr=0.0001", "", [0, 1]),
    ]
    assert seen(groups_of(runs[:2] + runs[4:])) == [("dpo", "", [0, 1]), ("simpo", "", [0, 1])]
    assert seen(groups_of(runs[:1])) == [("dpo-0.0001-0", "", [0])]
    assert seen(groups_of([runs[0], runs[0]])) == [("dpo-0.0001-0", "", [0]), ("dpo-0.0001-0 (2)", "", [0])]


def test_folders_without_a_finished_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run folder"):
        groups_of([tmp_path])
    run = write_run(tmp_path / "run", {ASR: 0.1})
    (run / "result.json").unlink()
    with pytest.raises(UsageError, match="not finished") as error:
        groups_of([run])
    assert f"alignzoo run --resume {run}" in str(error.value.hint)


def refused(groups: list[Group]) -> str:
    with pytest.raises(UsageError, match="cannot be compared") as error:
        compare(groups)
    assert "--anyway" in str(error.value.hint)
    return error.value.message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"label_noise": 0.2}, "data: label-noise is 0.0 in one; 0.2 in other"),
        ({"identity": "others"}, "data: the hash of the training rows at seed 0 is rows in one; others in other"),
        ({"eval_pairs": 8}, "splits: eval-pairs is 256 in one; 8 in other"),
        ({"steps": 4}, "training steps: the number is 2 in one; 4 in other"),
        ({"judge": ["sandbox"]}, "judges: --judge is none in one; sandbox in other"),
    ],
)
def test_runs_on_other_data_splits_judges_or_steps_are_refused(
    words: dict[str, Any], said: str, tmp_path: Path
) -> None:
    one, other = write_run(tmp_path / "one", {ASR: 0.1}), write_run(tmp_path / "other", {ASR: 0.3}, **words)
    groups = [group("one", {0: one}), group("other", {0: other})]
    assert refused(groups).splitlines()[1:] == [f"  {said}"]
    comparison = compare(groups, anyway=True)
    assert comparison.warnings[0] == f"compared anyway: {said}"
    assert compare([replace(one, block=one.label) for one in groups]).tables  # each in a block of its own


def test_evaluations_with_other_prompts_or_judges_are_refused(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, {ASR: 0.1}) for name in ("one", "other")]
    groups = [group(run.name, {0: run}) for run in runs]
    evaluated(runs[0], digest="a")
    assert differences(groups) == []  # the other one was not evaluated
    evaluated(runs[1], digest="b", judge_model="judge-2")
    groups = [group(run.name, {0: run}) for run in runs]
    judges, prompts = refused(groups).splitlines()[1:]
    assert judges.startswith("  judges: keywords is ")
    assert "judge-2 in other" in judges
    assert prompts.startswith("  evaluation prompts: xstest is 2, a, ")
    assert "2, b, " in prompts


def test_other_training_rows_are_the_effect_of_another_selector(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {ASR: 0.1})
    other = write_run(tmp_path / "other", {ASR: 0.1}, identity="fewer rows", selector=["safedpo"])
    comparison = compare([group("one", {0: one}), group("other", {0: other})])
    assert any("selectors differ" in sentence for sentence in comparison.warnings)
