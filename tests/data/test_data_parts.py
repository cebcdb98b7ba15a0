"""Training, held-out and probe pairs: no shared prompt, nothing lost unsaid, noise on the training part only."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from alignzoo_sandbox import MODEL_PATH
from data_examples import MISTRAL, assistant, system, user
from heard import Heard
from held import until
from transformers import AutoTokenizer

from alignzoo.data.parts import Parts, load_parts
from alignzoo.data.probe_rows import check_probe_pairs, set_aside
from alignzoo.data.tokenise_rows import TokeniseRows
from alignzoo.errors import DataError
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.settings import Settings


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_PATH)


def write(path: Path, count: int, *, first: int = 0) -> str:
    rows = [
        {"prompt": f"How do I paint tower {first + i // 2}?", "chosen": f"Gladly {i}.", "rejected": f"No {i}."}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(tokenizer: Any, notes: Heard | None = None, needs: frozenset[Any] = frozenset(), **settings: Any) -> Parts:
    return load_parts(Settings(model="m", **settings), tokenizer, needs=needs, report=notes or Heard())


def test_every_pair_is_in_one_part_and_no_prompt_in_two(tokenizer: Any, tmp_path: Path) -> None:
    parts = load(tokenizer, data=write(tmp_path / "a.jsonl", 200), eval_share=0.2, eval_pairs=9, probe_share=0.3)
    held = [parts.train, parts.held_out, parts.probe_train, parts.probe_validation]
    assert sum(len(part) for part in held) == 200, "what is beyond --eval-pairs is trained on"
    assert len(parts.held_out) == 10, "the last prompt is held out whole"
    prompts = [set(part["prompt_key"][:]) for part in held]
    assert sum(map(len, prompts)) == len(set().union(*prompts))


def test_what_is_held_out_does_not_depend_on_seed_noise_or_order(tokenizer: Any, tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", 100)
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b.jsonl").write_text("".join(reversed(lines)))
    one = load(tokenizer, data=first, eval_share=0.2)
    other = load(tokenizer, data=str(tmp_path / "b.jsonl"), eval_share=0.2, seed=5, label_noise=0.3)
    assert set(one.held_out["prompt_text"][:]) == set(other.held_out["prompt_text"][:])
    assert first_responses(one.held_out) == first_responses(other.held_out), "never noisy"


def first_responses(rows: Any) -> set[str]:
    return {texts[0] for texts in rows["response_text"]}


CONTROLS = (
    {"geometry": "plain"},
    {"geometry": "sam"},
    *({"geometry": "shapo-token", "geometry.select": select} for select in ("anti-toxic", "random", "all")),
    {"geometry": "shapo-token", "geometry.probe": "saved"},
    {"robust": ["soft-label"], "reward": "probe"},
)


def test_a_method_and_its_controls_train_on_the_same_pairs_in_the_same_order(tokenizer: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", 400)
    seen = []
    for words in CONTROLS:
        given = {"model": "m", "data": data, "label-noise": 0.2, "eval-share": 0.1, **words}
        plan = require(resolve([Layer("flag", given)]))
        parts = load_parts(plan.settings, tokenizer, needs=plan.needs, report=Heard())
        seen.append((parts.train["row_id"][:], sorted(parts.flipped), parts.train_identity, parts.fingerprint))
    assert all(other == seen[0] for other in seen), [len(pairs) for pairs, *_ in seen]
    noisier = load(tokenizer, data=data, label_noise=0.3, eval_share=0.1).train_identity
    assert noisier != seen[0][2], "other labels are other training pairs"


def test_the_default_share_for_the_probe_is_capped_and_an_explicit_one_is_not() -> None:
    from datasets import Dataset

    prompts = Dataset.from_dict({"prompt_key": [str(n) for n in range(30_000)]})
    few = prompts.select(range(2_000))
    asked = [(few, None), (prompts, None), (prompts, 0.1)]
    sizes = [sum(map(len, set_aside(pairs, share)[1:])) for pairs, share in asked]
    assert sizes == [pytest.approx(size, rel=0.1) for size in (200, 1000, 3000)]
    assert set_aside(few, 0) == (few, None, None)


def test_the_report_says_which_pairs_train(tokenizer: Any, tmp_path: Path) -> None:
    notes, data = Heard(), write(tmp_path / "a.jsonl", 1300)
    parts = load(tokenizer, notes, data=data)
    sizes = [len(part) for part in (parts.train, parts.held_out, parts.probe_train, parts.probe_validation)]
    train, held_out, probe, validation = (f"{size:,}" for size in sizes)
    assert f"pairs: {train} for training, {held_out} held out, {probe} + {validation} set aside" in "".join(notes.said)
    assert "," in train


def behind_a_system_text(path: Path, template: str) -> dict[str, Any]:
    """60 pairs, and the sandbox's tokenizer with another chat template."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.chat_template = template
    rows = [
        {
            "prompt": [system("You are a careful guide."), user(f"How far is tower {n}?")],
            "chosen": [assistant(f"Far {n}.")],
            "rejected": [assistant(f"No {n}.")],
        }
        for n in range(60)
    ]
    return {"tokenizer": tokenizer, "data": lines(path, rows)}


@pytest.mark.parametrize(("template", "restored"), [(MISTRAL, 60), (MISTRAL.replace("loop.last", "loop.first"), 0)])
def test_a_template_that_rewrites_prompts_is_reported_with_its_share(
    template: str, restored: int, tmp_path: Path
) -> None:
    notes = Heard()
    summary = load(notes=notes, **behind_a_system_text(tmp_path / "a.jsonl", template)).summaries["train"]
    assert summary.counted["prompt-restored"] == restored
    assert summary.lengths["prompt"]["p5"] > 20
    said = "in 60 of 60 rows: 60 keep the prompt used for generation, 0 are left out"
    assert [said in text for text in notes.warnings] == [True] * bool(restored)


def test_pairs_whose_reply_cannot_be_told_from_a_rewritten_prompt_are_left_out(tmp_path: Path) -> None:
    template = MISTRAL.replace("{{ m.content }}[", "{{ m.content }} {{ loop.last }}[")
    with pytest.raises(DataError, match="none of its 60 rows is usable") as error:
        load(**behind_a_system_text(tmp_path / "a.jsonl", template))
    assert "60  prompt-rewritten-by-chat-template" in str(error.value.hint)


def test_too_few_pairs_to_judge_a_probe_are_refused_where_one_is_needed(tokenizer: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", 20)
    with pytest.raises(DataError, match=r"unsafe responses to validate on; it needs at least 5 of each") as error:
        load(tokenizer, data=data, probe_share=0.3, needs=frozenset({"probe"}))
    assert all(word in str(error.value.hint) for word in ("more data", "--probe.share", "--geometry.probe DIR"))
    assert len(load(tokenizer, data=data, probe_share=0.3).train) < 20


@pytest.mark.parametrize(("unsafe", "enough"), [(0, False), (4, False), (5, True)])
def test_the_probe_is_judged_on_responses_of_either_class(unsafe: int, enough: bool) -> None:
    from datasets import Dataset

    def labelled(count: int, unsafe: int) -> Any:
        return Dataset.from_dict({"safe": [[True, n >= unsafe] for n in range(count)]})

    with contextlib.nullcontext() if enough else pytest.raises(DataError, match=f"{unsafe} unsafe"):
        check_probe_pairs(labelled(30, 1), labelled(30, unsafe), hint="")


def test_prompts_of_the_held_out_data_are_not_trained_on(tokenizer: Any, tmp_path: Path) -> None:
    notes = Heard()
    data, other = write(tmp_path / "a.jsonl", 40), write(tmp_path / "b.jsonl", 20, first=15)
    parts = load(tokenizer, notes, data=data, eval_data=other, eval_pairs=6, probe_share=0)
    assert (len(parts.train), len(parts.held_out)) == (30, 6)
    assert any("left out 10 training pairs whose prompts are also in the held-out pairs" in text for text in notes.said)
    assert any("held-out pairs: using 6 of 20" in text for text in notes.said)


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def scored(count: int = 60) -> list[dict[str, Any]]:
    return [
        {"prompt": f"How far is tower {n}?", "chosen": f"Far {n}.", "rejected": f"No {n}.", "chosen_score": n / 2}
        | {"rejected_score": 0.5, "group": "ab"[n % 2]}
        for n in range(count)
    ]


@pytest.mark.parametrize(
    "change",
    [
        *({"prompt": "Where?"}, {"chosen": "Near."}, {"rejected": "Yes."}),
        *({"chosen_score": 9.5}, {"rejected_score": 0.0}, {"group": "c"}),
        *({"eval_pairs": 2}, {"eval_share": 0.5}, {"label_noise": 0.5}, {"label_noise": 0.5, "seed": 4}),
        {"order": 1},
    ],
    ids=str,
)
def test_the_identity_changes_with_the_pairs_as_used(tokenizer: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    rows = scored()
    first = load(tokenizer, data=lines(tmp_path / "a.jsonl", rows), eval_share=0.2).fingerprint
    settings = {name: value for name, value in change.items() if name in Settings.model_fields}
    if change.get("order"):
        rows = rows[::-1]
    elif not settings:
        rows[30] |= change
    other = load(tokenizer, data=lines(tmp_path / "b.jsonl", rows), **{"eval_share": 0.2, **settings}).fingerprint
    assert other != first
    assert load(tokenizer, data=str(tmp_path / "a.jsonl"), eval_share=0.2).fingerprint == first


def test_two_seeds_of_noise_are_two_identities(tokenizer: Any, tmp_path: Path) -> None:
    data = lines(tmp_path / "a.jsonl", scored())
    assert len({load(tokenizer, data=data, label_noise=0.3, seed=seed).fingerprint for seed in range(3)}) == 3


@pytest.mark.parametrize("change", ["settings", "file", "column", "dropped row"])
def test_the_identity_does_not_change_with_anything_else(tokenizer: Any, tmp_path: Path, change: str) -> None:
    rows, settings = scored(), {"eval_share": 0.2, "data": str(tmp_path / "a.jsonl")}
    lines(tmp_path / "a.jsonl", rows)
    first = load(tokenizer, **settings).fingerprint
    if change == "settings":
        settings |= {"lr": 1e-2, "seed": 3, "data_workers": 2, "max_length": 900}
    elif change == "file":
        (tmp_path / "folder").mkdir()
        settings["data"] = str((tmp_path / "a.jsonl").rename(tmp_path / "folder" / "b.jsonl"))
    elif change == "column":
        lines(tmp_path / "a.jsonl", [{**row, "note": "n"} for row in rows])
    else:
        lines(tmp_path / "a.jsonl", [{**rows[0], "chosen": ""}, *rows])
    assert load(tokenizer, **settings).fingerprint == first


def test_held_out_pairs_that_are_not_used_do_not_count(tokenizer: Any, tmp_path: Path) -> None:
    given = {"data": write(tmp_path / "a.jsonl", 40), "eval_pairs": 6}
    first = load(tokenizer, **given, eval_data=write(tmp_path / "b.jsonl", 20, first=100))
    used = set(first.held_out["prompt_text"][:])
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    unused = next(row for row in rows if not any(row["prompt"] in text for text in used))
    unused["chosen"] = "Otherwise."
    second = load(tokenizer, **given, eval_data=lines(tmp_path / "b.jsonl", rows))
    assert second.fingerprint == first.fingerprint
    next(row for row in rows if row is not unused and any(row["prompt"] in text for text in used))["chosen"] = "New."
    assert load(tokenizer, **given, eval_data=lines(tmp_path / "b.jsonl", rows)).fingerprint != first.fingerprint


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_as_many_processes_tokenise_as_are_asked_for(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    call = TokeniseRows.__call__

    def processes() -> set[str]:
        return set((tmp_path / "processes").read_text().split())

    def noted(self: TokeniseRows, block: dict[str, list[Any]], indices: list[int]) -> Any:
        with (tmp_path / "processes").open("a") as file:
            file.write(f"{os.getpid()}\n")
        until(lambda: len(processes()) >= workers)  # or one would be through before another has begun
        return call(self, block, indices)

    monkeypatch.setattr(TokeniseRows, "__call__", noted)
    load(tokenizer, data=write(tmp_path / "a.jsonl", 60), data_workers=workers)
    assert len(processes()) == workers
    assert (str(os.getpid()) in processes()) == (workers == 1)


@pytest.mark.parametrize(("need", "column"), [("scores", "chosen_score"), ("groups", "group")])
def test_a_need_that_the_data_cannot_meet_is_refused(tokenizer: Any, tmp_path: Path, need: str, column: str) -> None:
    with pytest.raises(DataError, match=rf"needs {need}, but the data has no {column}"):
        load(tokenizer, needs=frozenset({need}), data=write(tmp_path / "a.jsonl", 40))


def test_nothing_left_to_train_on_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", 4)
    with pytest.raises(DataError, match="no pairs are left to train on"):
        load(tokenizer, data=data, eval_data=data)


def test_held_out_rows_of_one_prompt_are_not_evaluated_where_responses_to_others_are_needed(
    tokenizer: Any, tmp_path: Path
) -> None:
    """They stay held out: what is trained on does not depend on the methods."""
    given: dict[str, Any] = {"data": write(tmp_path / "a.jsonl", 40), "eval_share": 0.5, "eval_pairs": 1}
    notes = Heard()
    parts = load(tokenizer, **given, needs=frozenset({"mismatched"}), notes=notes)
    assert "not evaluating: the held-out rows (2) have a single prompt" in "".join(notes.said)
    assert (parts.held_out, parts.partners.keys()) == (None, {"train"})
    plain = load(tokenizer, **given)
    assert plain.held_out is not None
    assert parts.train["row_id"][:] == plain.train["row_id"][:]
    given["eval_pairs"] = 64
    assert load(tokenizer, **given, needs=frozenset({"mismatched"})).partners.keys() == {"train", "held_out"}
