"""Runs whose training rows selectors have chosen: before any weight loads where they can, recorded, resumable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alignzoo_sandbox import preference_rows
from heard import Heard
from run_helpers import Az, MakeModel, OnTwoRanks, RunFolder, Train, write_rows

from alignzoo.errors import AlignzooError, DataError, IncompatibleError, MethodError

Command = Callable[..., list[str]]
CASES = [(True, True), (True, False), (False, True), (False, False)]
ROWS = 40


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Pairs in which every combination of safety labels is as frequent."""
    rows = preference_rows("train", ROWS)
    for i, row in enumerate(rows):
        row["chosen_safe"], row["rejected_safe"] = CASES[i % 4]
    return write_rows(tmp_path / "labelled.jsonl", rows)


def recorded(run: RunFolder) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    header, *lines = [json.loads(line) for line in (run.path / "selection.jsonl").read_text().splitlines()]
    return header, lines


def test_safedpo_selects_before_any_weight_loads(labelled: Path, train: Train, make_model: MakeModel) -> None:
    heard = Heard()
    given = {"model": str(make_model()), "data": str(labelled), "probe.share": 0, "eval-share": 0.2}
    run = train(report=heard, selector="safedpo", **given)
    plain = train(**given)
    header, lines = recorded(run)
    dropped = [line["row_id"] for line in lines if line.get("dropped") == "both unsafe"]
    swapped = [line["row_id"] for line in lines if line.get("flipped")]
    assert len(dropped) + len(swapped) == len(lines)
    assert {row % 4 for row in dropped} == {3}
    assert {row % 4 for row in swapped} == {2}
    assert run.result["pairs"]["train"] == plain.result["pairs"]["train"] - len(dropped)
    assert run.result["pairs"]["held_out"] == plain.result["pairs"]["held_out"], "held-out rows stay as they are"
    assert run.result["train_identity"] != plain.result["train_identity"]
    said = f"selector safedpo: {len(swapped)} of {plain.result['pairs']['train']} pairs swapped, {len(dropped)} dropped"
    [place] = [i for i, line in enumerate(heard.said) if said in line]
    assert not any("loading" in line for line in heard.said[:place])
    facts = json.loads((run.path / "data.json").read_text())
    assert facts["selection"] == [{**header["selectors"][0], "facts": {}}]
    assert "selection" not in json.loads((plain.path / "data.json").read_text())
    assert run.plan["selector"][0]["name"] == "safedpo"


def test_data_transformed_by_hand_trains_the_same_model(
    labelled: Path, train: Train, make_model: MakeModel, tmp_path: Path
) -> None:
    """A selector's rows are the rows of a file in which its changes were made by hand."""
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    by_hand = []
    for row in rows:
        if row["chosen_safe"] or row["rejected_safe"]:
            if not row["chosen_safe"]:
                row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
                row["chosen_safe"], row["rejected_safe"] = True, False
            by_hand.append(row)
    given = {"model": str(make_model()), "probe.share": 0, "eval-share": 0}
    selected = train(data=str(labelled), selector="safedpo", **given)
    edited = train(data=str(write_rows(tmp_path / "edited.jsonl", by_hand)), **given)
    assert selected.column("loss") == edited.column("loss")
    assert all(bool((tensor == edited.weights[name]).all()) for name, tensor in selected.weights.items())


def test_selectors_stack_in_order_and_see_label_noise(labelled: Path, train: Train, make_model: MakeModel) -> None:
    given = {"model": str(make_model()), "data": str(labelled), "probe.share": 0, "eval-share": 0}
    noisy = train(selector=["safedpo", "harmful-prefix"], label_noise=1.0, **{"selector.p": 1.0}, **given)
    header, lines = recorded(noisy)
    assert [one["selector"] for one in header["selectors"]] == ["safedpo", "harmful-prefix"]
    swapped = [line["row_id"] for line in lines if line.get("flipped")]
    assert {row % 4 for row in swapped} == {1}, "noise has swapped every pair before"
    prefixed = [line for line in lines if line.get("prefix")]
    assert len(prefixed) == ROWS * 3 // 4
    assert noisy.result["pairs"]["train"] == ROWS * 3 // 4


@pytest.mark.parametrize(
    ("drop", "shape", "error", "said"),
    [
        (
            ("chosen_safe",),
            "pairs",
            DataError,
            "needs safety labels, but the data has no chosen_safe or",
        ),
        ((), "unpaired", IncompatibleError, "--selector safedpo reads pairs, but the data has unpaired rows"),
    ],
)
def test_refused_before_weights_load(
    drop: tuple[str, ...], shape: str, error: type[AlignzooError], said: str, train: Train, tmp_path: Path
) -> None:
    rows = [{key: value for key, value in row.items() if key not in drop} for row in preference_rows("train", 24)]
    if shape == "unpaired":
        rows = [
            {"prompt": row["prompt"], "completion": row["chosen"], "label": bool(i % 2)} for i, row in enumerate(rows)
        ]
    heard, data = Heard(), str(write_rows(tmp_path / "rows.jsonl", rows))
    with pytest.raises(error, match=said):
        train(
            report=heard,
            data=data,
            selector=["perpcorrect", "safedpo"] if shape == "pairs" else "safedpo",
            loss="dpo" if shape == "pairs" else "sft",
            **{"probe.share": 0} | ({"selector.perpcorrect.clean": "group:harmless"} if shape == "pairs" else {}),
        )
    assert not any("loading" in line for line in heard.said)


def test_nothing_left_is_refused(train: Train, tmp_path: Path) -> None:
    rows = [row | {"chosen_safe": False, "rejected_safe": False} for row in preference_rows("train", 24)]
    with pytest.raises(DataError, match=r"leaves none of the \d+ pairs to train on \(both unsafe: \d+\)"):
        train(data=str(write_rows(tmp_path / "rows.jsonl", rows)), selector="safedpo", **{"probe.share": 0})


def test_a_resumed_run_selects_the_same_rows_or_refuses(
    command: Command, az: Az, labelled: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    given = {"model": make_model(), "data": labelled, "probe.share": 0, "max-steps": 4, "save-every": 2}
    ended = az(*command(tmp_path / "whole", "--selector", "safedpo", **given))
    assert ended.returncode == 0, ended.stderr
    whole, folder = RunFolder(tmp_path / "whole"), tmp_path / "half"
    shutil.copytree(whole.path, folder)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    resumed = az("run", "--resume", str(folder))
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step 2 of 4" in resumed.stderr
    assert RunFolder(folder).timeless() == whole.timeless()
    lines = (folder / "selection.jsonl").read_text().splitlines(keepends=True)
    (folder / "selection.jsonl").write_text("".join(lines[:-1]))
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    refused = az("run", "--resume", str(folder))
    assert refused.returncode == 1
    assert "the selectors of this run chose other rows than" in refused.stderr


def test_perpcorrect_finds_the_labels_that_noise_has_flipped(train: Train, tmp_path: Path) -> None:
    """Requests that are refused or answered: a few verified rows tell the surrogate which is preferred."""
    rows = [row for row in preference_rows("train", 400) if not row["rejected_safe"]][:120]
    clean = tmp_path / "clean.txt"
    clean.write_text("\n".join(map(str, range(16))))
    heard = Heard()
    run = train(
        report=heard,
        data=str(write_rows(tmp_path / "rows.jsonl", rows)),
        selector="perpcorrect",
        label_noise=0.3,
        **{
            "probe.share": 0,
            "eval-share": 0,
            "selector.perpcorrect.clean": str(clean),
            "selector.perpcorrect.rounds": 2,
            "selector.perpcorrect.share": 0.1,
            "selector.perpcorrect.lr": 0.01,  # the sandbox's model is small
        },
    )
    noise = {json.loads(line)["row_id"] for line in (run.path / "label_noise.jsonl").read_text().splitlines()[1:]}
    flipped = {line["row_id"] for line in recorded(run)[1]}
    assert len(noise) == 36
    assert len(flipped & noise) / len(noise) >= 0.95
    assert len(flipped - noise) <= 0.02 * len(rows)
    [facts] = [one["facts"] for one in json.loads((run.path / "data.json").read_text())["selection"]]
    assert facts["noise"] == pytest.approx(0.3, abs=0.05)
    assert facts["separation"] > 0.95


def test_a_selector_that_fails_is_named(train: Train, tmp_path: Path) -> None:
    plugin = tmp_path / "broken_selector.py"
    plugin.write_text(
        "from alignzoo.interfaces import Selector\n"
        "from alignzoo.plugin import SelectorCard, hookimpl\n\n\n"
        "class Broken(Selector):\n"
        "    def select(self, ctx):\n"
        "        return 1 / 0\n\n\n"
        "@hookimpl\n"
        "def alignzoo_methods():\n"
        '    return [SelectorCard(name="broken", target=f"{__name__}:Broken", summary="Fails", formula="?")]\n'
    )
    from alignzoo.plugin import plugins_from

    with plugins_from(plugin), pytest.raises(MethodError, match=r"'broken' failed in select\(\): ZeroDivision"):
        train(selector="broken")


@pytest.mark.slow
def test_two_ranks_select_the_same_rows(
    command: Command, az: Az, on_two_ranks: OnTwoRanks, labelled: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    verified = write_rows(tmp_path / "verified.txt", list(range(20)))
    more = ["--selector", "safedpo", "--selector", "perpcorrect", "--selector", "harmful-prefix"]
    more += ["--selector.perpcorrect.clean", str(verified), "--selector.perpcorrect.rounds", "1"]
    given = {"model": make_model(), "data": labelled, "probe.share": 0, "label-noise": 0.2, "optimizer": "sgd"}
    ended = az(*command(tmp_path / "one", *more, **given))
    assert ended.returncode == 0, ended.stderr
    both = on_two_ranks(*command(tmp_path / "two", *more, **given))
    assert both.returncode == 0, both.stderr
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert (two.path / "selection.jsonl").read_text() == (one.path / "selection.jsonl").read_text()
    assert both.stderr.count("selector safedpo:") == 1
    assert two.result["train_identity"] == one.result["train_identity"]
    for here, there in zip(two.timeless(), one.timeless(), strict=True):
        assert here == pytest.approx(there, rel=1e-5, abs=1e-5)


def test_a_composition_can_name_a_selector(tmp_path: Path) -> None:
    from alignzoo.plan.recipe import Layer, read_recipe
    from alignzoo.plan.resolve import require, resolve
    from alignzoo.plugin import plugins_from

    plugin = tmp_path / "safe_words.py"
    plugin.write_text(
        "from alignzoo.plugin import Composition, hookimpl\n\n\n"
        "@hookimpl\n"
        "def alignzoo_methods():\n"
        '    return [Composition(name="safe-dpo", loss="dpo", selector=("safedpo",), summary="Safe pairs")]\n'
    )
    named = {"model": "m", "data": "d.jsonl"}
    with plugins_from(plugin):
        plan = require(resolve([Layer("flag", {**named, "loss": "safe-dpo", "selector": ["harmful-prefix"]})]))
        assert [method.card.name for method in plan.of("selector")] == ["safedpo", "harmful-prefix"]
        assert plan.sentence() == "--loss dpo --geometry plain --selector safedpo --selector harmful-prefix"
        assert "safety" not in plan.needs, "training needs no labels once the rows are chosen"
    recipe = require(resolve([read_recipe("safedpo"), Layer("flag", named)]))
    assert recipe.sentence() == "--loss safedpo --geometry plain --selector safedpo"


def test_selectors_that_cannot_be_combined_or_met(az: Az, tmp_path: Path) -> None:
    plugin = tmp_path / "orderly.py"
    plugin.write_text(
        "from alignzoo.interfaces import Selection, Selector\n"
        "from alignzoo.plugin import SelectorCard, hookimpl\n\n\n"
        "class Backwards(Selector):\n"
        "    def select(self, ctx):\n"
        "        return Selection(range(len(ctx) - 1, -1, -1), keep_order=True)\n\n\n"
        "def card(name, **facts):\n"
        '    return SelectorCard(name=name, target=f"{__name__}:Backwards", summary="B", formula="?", **facts)\n\n\n'
        "@hookimpl\n"
        "def alignzoo_methods():\n"
        '    return [card("one", orders=True), card("two", orders=True), card("odd", needs={"reference"})]\n'
    )
    both = az("compat", "--plugin", str(plugin), "--selector", "one", "--selector", "two")
    assert both.returncode == 3
    assert "set the order of the training rows" in both.stdout
    odd = az("compat", "--plugin", str(plugin), "--selector", "odd")
    assert odd.returncode == 3
    assert "'odd' needs reference, but a selector reads columns of the training rows only" in odd.stdout


def test_rows_of_domains_left_out_are_evaluated_apart(train: Train, make_model: MakeModel, tmp_path: Path) -> None:
    """``eval/…`` stays that of all held-out rows; in and out are its parts, in proportion to their rows."""
    rows = [{**row, "group": f"g{i % 3}"} for i, row in enumerate(preference_rows("train", ROWS))]
    data = write_rows(tmp_path / "grouped.jsonl", rows)
    given = {"model": str(make_model()), "data": str(data), "probe.share": 0, "eval-share": 0.4, "max-steps": 1}
    run = train(selector="domains", **{"selector.domains.out": "g1"}, **given)
    plain = train(**given)
    header, lines = recorded(run)
    assert header["selectors"][0]["left_out"] == ["g1"]
    assert {line["dropped"] for line in lines} == {"domain g1"}
    assert {line["row_id"] % 3 for line in lines} == {1}
    before, without = run.result["before"], plain.result["before"]
    assert {name for name in without if name.startswith("eval/")} == {
        name for name in before if name.startswith("eval/") and not name.startswith(("eval/in/", "eval/out/"))
    }
    for name in ("rewards/margins", "logps/chosen"):
        assert before[f"eval/{name}"] == pytest.approx(without[f"eval/{name}"], abs=1e-4)
        low, high = sorted((before[f"eval/in/{name}"], before[f"eval/out/{name}"]))
        assert low - 1e-6 <= before[f"eval/{name}"] <= high + 1e-6
    assert before["eval/in/logps/chosen"] != before["eval/out/logps/chosen"]


def test_flips_are_recorded_row_by_row_with_their_reason(train: Train, make_model: MakeModel, tmp_path: Path) -> None:
    rows = [
        {**row, "chosen_score": i / 10, "rejected_score": 0.0} for i, row in enumerate(preference_rows("train", ROWS))
    ]
    given = {"model": str(make_model()), "data": str(write_rows(tmp_path / "scored.jsonl", rows)), "max-steps": 1}
    run = train(selector="margin-flips", **{"selector.margin-flips.rate": 0.25}, **given)
    header, lines = recorded(run)
    assert header["selectors"][0]["flipped"] == len(lines) == round(0.25 * run.result["pairs"]["train"])
    assert all(line["note"] == f"margin {line['row_id'] / 10:.4g}" and line["flipped"] for line in lines)
    rate_0 = train(selector="margin-flips", **{"selector.margin-flips.rate": 0.0}, **given)
    plain = train(**given)
    assert rate_0.result["train_identity"] == plain.result["train_identity"] != run.result["train_identity"]
    assert rate_0.column("loss") == plain.column("loss")
