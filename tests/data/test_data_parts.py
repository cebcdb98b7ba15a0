"""Training, held-out and probe pairs: no shared prompt, nothing lost unsaid, noise on the training part only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from alignzoo.data.parts import Parts, load_parts
from alignzoo.errors import DataError
from alignzoo.plugin.settings import Settings
from alignzoo.report import Reporter
from alignzoo.sandbox import MODEL_PATH


class Notes(Reporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


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


def load(tokenizer: Any, notes: Notes | None = None, needs: frozenset[Any] = frozenset(), **settings: Any) -> Parts:
    return load_parts(Settings(model="m", **settings), tokenizer, needs=needs, report=notes or Notes())


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
    assert set(one.held_out["chosen_text"][:]) == set(other.held_out["chosen_text"][:]), "never noisy"


def test_prompts_of_the_held_out_data_are_not_trained_on(tokenizer: Any, tmp_path: Path) -> None:
    notes = Notes()
    data, other = write(tmp_path / "a.jsonl", 40), write(tmp_path / "b.jsonl", 20, first=15)
    parts = load(tokenizer, notes, data=data, eval_data=other, eval_pairs=6)
    assert (len(parts.train), len(parts.held_out)) == (30, 6)
    assert any("10 training pairs have prompts of the held-out pairs" in text for text in notes.said)
    assert any("held-out pairs: 6 of 20" in text for text in notes.said)


@pytest.mark.parametrize("change", [{"eval_pairs": 2}, {"label_noise": 0.5}, {"eval_share": 0.5}], ids=str)
def test_the_identity_is_that_of_the_pairs_as_used(tokenizer: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    given = {"data": write(tmp_path / "a.jsonl", 60), "eval_share": 0.2}
    first = load(tokenizer, **given).fingerprint
    assert load(tokenizer, **given, lr=1e-2).fingerprint == first
    assert load(tokenizer, **{**given, **change}).fingerprint != first


@pytest.mark.parametrize(("need", "column"), [("scores", "chosen_score"), ("groups", "group")])
def test_a_need_that_the_data_cannot_meet_is_refused(tokenizer: Any, tmp_path: Path, need: str, column: str) -> None:
    with pytest.raises(DataError, match=rf"needs {need}, and the data has no {column}"):
        load(tokenizer, needs=frozenset({need}), data=write(tmp_path / "a.jsonl", 40))


def test_nothing_left_to_train_on_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", 4)
    with pytest.raises(DataError, match="no pair is left to train on"):
        load(tokenizer, data=data, eval_data=data)
