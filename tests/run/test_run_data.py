"""Data of every layout and file kind trains; noise and held-out pairs touch what they should and nothing else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from alignzoo_sandbox import preference_rows
from datasets import Dataset
from heard import Heard
from run_helpers import EVAL_KEYS, LN2, MakeModel, RunFolder, Train, plain_rows, same, write_rows

ROWS = 60


def _hh(row: dict[str, Any]) -> dict[str, str]:
    start = f"\n\nHuman: {row['prompt']}\n\nAssistant:"
    return {side: start + row[side] for side in ("chosen", "rejected")}


def _pku(row: dict[str, Any], n: int) -> dict[str, Any]:
    better = n % 2
    sides = (row["chosen"], row["rejected"]) if better == 0 else (row["rejected"], row["chosen"])
    return {
        "prompt": row["prompt"],
        "response_0": sides[0],
        "response_1": sides[1],
        "is_response_0_safe": better == 0,
        "is_response_1_safe": better == 1,
        "better_response_id": better,
        "safer_response_id": better,
    }


@pytest.fixture(params=["hh-rlhf", "explicit", "conversational", "pku-saferlhf", "implicit-conversational"])
def layout_and_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """One file kind for each layout: jsonl.gz, csv, json, parquet, and a folder of Arrow files."""
    layout = request.param
    rows = plain_rows(ROWS) if layout == "hh-rlhf" else plain_rows(2 * ROWS)[ROWS:]
    if layout == "hh-rlhf":
        file = tmp_path / "pairs.jsonl.gz"
        lines = write_rows(tmp_path / "pairs.txt", [_hh(row) for row in rows]).read_bytes()
        file.write_bytes(gzip.compress(lines))
    elif layout == "explicit":
        file = tmp_path / "pairs.csv"
        Dataset.from_list(rows).to_csv(file)
    elif layout == "conversational":
        file = tmp_path / "pairs.json"
        file.write_text(json.dumps(preference_rows("train", ROWS)))
    elif layout == "pku-saferlhf":
        file = tmp_path / "pairs.parquet"
        Dataset.from_list([_pku(row, n) for n, row in enumerate(rows)]).to_parquet(file)
    else:
        file = tmp_path / "pairs"
        chats = [{side: [*row["prompt"], *row[side]] for side in ("chosen", "rejected")} for row in _chats()]
        Dataset.from_list(chats).save_to_disk(file)
    return layout, file


def _chats() -> list[dict[str, Any]]:
    return preference_rows("train", ROWS)


def test_every_layout_trains(layout_and_file: tuple[str, Path], train: Train, make_model: MakeModel) -> None:
    layout, file = layout_and_file
    heard = Heard()
    run = train(model=str(make_model()), data=str(file), geometry="shapo-token", report=heard)
    assert run.column("loss")[0] == pytest.approx(LN2, abs=1e-6)
    assert ("layout", "", layout) in heard.tables[f"data: {file}"]
    summary = json.loads((run.path / "data.json").read_text())["train"]
    assert (summary["format"], summary["rows"], summary["kept"]) == (layout, ROWS, ROWS)
    labels = json.loads((run.path / "probe" / "probe.json").read_text())["labels"]
    has_labels = layout in ("conversational", "pku-saferlhf")
    assert labels == ("safe" if has_labels else "order")
    said = (
        "safety probe: no safety labels in the data; "
        "chosen (best) responses count as safe, rejected (worst) ones as unsafe"
    )
    assert (said in heard.notes) == (not has_labels)


def test_a_method_and_its_control_train_on_the_same_pairs(train: Train, make_model: MakeModel, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": str(write_rows(tmp_path / "pairs.jsonl", plain_rows(400))), "probe.share": None}
    given |= {"model": str(make_model()), "max-steps": 1, "label-noise": 0.2}
    method, control = (train(geometry=name, **given) for name in ("shapo-token", "plain"))
    assert method.result["pairs"] == control.result["pairs"]
    assert method.result["train_identity"] == control.result["train_identity"]
    assert method.column("logps/chosen") == control.column("logps/chosen")
    assert (method.path / "label_noise.jsonl").read_bytes() == (control.path / "label_noise.jsonl").read_bytes()


def test_a_model_without_chat_template_trains_on_text(train: Train, make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model("gpt2", chat_template=False, name="gpt2-no-template")
    rows = plain_rows(20)
    for name, content in (("explicit", rows), ("transcripts", [_hh(row) for row in rows])):
        file = write_rows(tmp_path / f"{name}.jsonl", content)
        run = train(model=str(model), data=str(file), **{"probe.share": 0})
        assert run.column("loss")[0] == pytest.approx(LN2, abs=1e-6)


def test_a_forced_layout_wins(train: Train, make_model: MakeModel, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "pairs.jsonl", [_hh(row) for row in plain_rows(40)])
    run = train(model=str(make_model()), data=str(file), **{"data.format": "implicit"})
    assert json.loads((run.path / "data.json").read_text())["train"]["format"] == "implicit"


def test_label_noise_is_on_record_row_by_row(train: Train, pairs: Path, tmp_path: Path) -> None:
    """Swapping by hand, in the file, exactly the pairs that the manifest names gives the same training."""
    heard = Heard()
    noisy = train(label_noise=0.25, report=heard)
    header, *flipped = [json.loads(line) for line in (noisy.path / "label_noise.jsonl").read_text().splitlines()]
    n = noisy.result["pairs"]["train"]
    assert header == {"rate": 0.25, "seed": 0, "n": n, "flipped": round(n / 4)}
    assert len(flipped) == round(n / 4)
    assert f"label noise: {len(flipped)} of {n} training rows flipped" in heard.notes
    ids = {line["row_id"] for line in flipped}
    assert len(ids) == len(flipped)
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    clean = train()
    for number in ids:
        row = rows[number]
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        row["chosen_safe"], row["rejected_safe"] = row["rejected_safe"], row["chosen_safe"]
    by_hand = train(data=str(write_rows(tmp_path / "swapped.jsonl", rows)))
    assert same(by_hand.weights, noisy.weights)
    # Had a held-out pair been swapped, its figures before training would differ; so the manifest holds none of them.
    assert by_hand.result["before"] == noisy.result["before"] == clean.result["before"]
    assert not same(clean.weights, noisy.weights)


def test_label_noise_depends_on_the_seed_alone(train: Train) -> None:
    def manifest(run: RunFolder) -> str:
        return (run.path / "label_noise.jsonl").read_text()

    first, other_methods = train(label_noise=0.25), train(label_noise=0.25, loss="ipo", lr=1e-5, batch_size=4)
    other_seed = train(label_noise=0.25, seed=1)
    assert manifest(first) == manifest(other_methods) != manifest(other_seed)


def test_noise_of_0_is_no_noise(train: Train) -> None:
    none, zero = train(), train(label_noise=0.0)
    assert none.timeless() == zero.timeless()
    assert same(none.weights, zero.weights)
    assert not (zero.path / "label_noise.jsonl").exists()


def test_eval_data_is_what_is_held_out(train: Train, pairs: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    held_out = write_rows(tmp_path / "held.jsonl", rows[:10])
    heard = Heard()
    run = train(eval_data=str(held_out), eval_every=1, report=heard, **{"probe.share": 0})
    assert any("training pairs whose prompts are also in the held-out pairs" in warning for warning in heard.warnings)
    sizes = run.result["pairs"]
    assert sizes["held_out"] == 10
    assert sizes["train"] <= 54
    assert all(line.keys() >= EVAL_KEYS for line in run.metrics)
    assert json.loads((run.path / "data.json").read_text()).keys() == {"train", "eval", "training"}
    assert run.result["before"]["eval/loss"] == pytest.approx(LN2, abs=1e-6)


def test_nothing_held_out(train: Train) -> None:
    run = train(eval_share=0, **{"probe.share": 0})
    assert run.result["pairs"] == {"train": 64, "held_out": 0, "probe": 0}
    assert run.result["before"] == run.result["after"] == {}


def test_what_is_held_out_does_not_depend_on_the_seed(train: Train) -> None:
    before = [train(seed=seed, max_steps=1).result["before"] for seed in (0, 1)]
    assert before[0] == before[1]


def test_epochs_count_pairs(train: Train, pairs: Path) -> None:
    given: dict[str, Any] = {"max_steps": None, "eval_share": 0, "probe.share": 0, "batch_size": 16}
    assert len(train(**given, epochs=1).metrics) == 4
    assert len(train(**given, epochs=0.5).metrics) == 2
    twice = train(**given, epochs=2)
    assert len(twice.metrics) == 8
    tokens = twice.column("tokens")
    assert sum(tokens[:4]) == sum(tokens[4:])
    assert twice.column("total_tokens")[-1] == twice.result["tokens"] == sum(tokens)


def test_the_prepared_data_is_read_again_from_its_cache(train: Train, environment: dict[str, str]) -> None:
    train(max_steps=1)
    cache = Path(environment["HF_DATASETS_CACHE"]) / "alignzoo"
    entries = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    train(max_steps=1, lr=1e-5, seed=3)
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == entries
    assert all(len(Dataset.from_file(str(cache / name / "rows.arrow"))) for name in entries)
