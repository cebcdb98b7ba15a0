"""``alignzoo judge pairs``: which responses are compared, by which judges, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_judges.pairwise_prompt import filled_pair, read_preference
from in_process import call_main
from reward_helpers import by_hand, save_classifier

from alignzoo import load_method
from alignzoo.contract.judge import Answered, JudgeContext
from alignzoo.evaluate.responses import Generated
from alignzoo.report import Reporter

CPU = JudgeContext(torch.device("cpu"), Reporter())
CAPFD = pytest.CaptureFixture[str]


def rows(lengths: list[int], **facts: Any) -> list[dict[str, Any]]:
    return [{"id": f"p{i}", "request": f"do {i}", "response": "w" * n, **facts} for i, n in enumerate(lengths)]


def written(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def evaluation(folder: Path, suites: dict[str, list[int]]) -> str:
    """The responses that `alignzoo eval` leaves in its folder."""
    (folder / "responses").mkdir(parents=True)
    for suite, lengths in suites.items():
        lines = [
            Generated(Answered(f"p{i}", f"do {i}", ({"role": "user", "content": "x"},), "w" * n, "c"), n, True).line()
            for i, n in enumerate(lengths)
        ]
        written(folder / "responses" / f"{suite}.jsonl", lines)
    return str(folder)


def test_the_table_and_its_json(tmp_path: Path, capfd: CAPFD) -> None:
    a, b = evaluation(tmp_path / "A", {"s": [5, 5, 1, 4]}), evaluation(tmp_path / "B", {"s": [3, 6, 1, 2], "t": [1]})
    words = ["judge", "pairs", a, b, "--judge", "longer"]
    shown = call_main(words, capfd)
    assert shown.returncode == 0, shown.stderr
    assert "win rate of A" in shown.stdout
    assert "2/1/1" in shown.stdout
    assert "a baseline" in shown.stdout
    assert "1 pairs of equal responses count as ties" in shown.stdout
    told = json.loads(call_main([*words, "--json"], capfd).stdout)
    [suite] = told["suites"]
    assert suite["overall"]["rate"]["value"] == 0.625
    assert suite["overall"]["n"] == suite["categories"]["c"]["n"] == 4
    assert (suite["overall"]["length_a"], suite["overall"]["length_b"]) == (3.75, 3)
    kept = tmp_path / "A" / "preferences"
    assert len((kept / "s" / "longer.jsonl").read_text().splitlines()) == 6  # both orders, once over two commands
    assert json.loads((kept / "pairs.json").read_text())["suites"] == told["suites"]


def test_references_are_what_a_is_compared_with(tmp_path: Path, capfd: CAPFD) -> None:
    lines = [*rows([5, 5], reference="www"), *rows([1])]
    a = written(tmp_path / "a.jsonl", lines)
    done = call_main(["judge", "pairs", a, "--references", "--judge", "longer", "--json"], capfd)
    [suite] = json.loads(done.stdout)["suites"]
    assert (suite["overall"]["wins"], suite["only_a"]) == (2, 1)


def test_prompts_are_matched_and_the_others_counted(tmp_path: Path, capfd: CAPFD) -> None:
    a = written(tmp_path / "a.jsonl", rows([5, 5, 5, 5]))
    b = written(tmp_path / "b.jsonl", [*reversed(rows([3, 3, 3])), {"id": "z", "prompt": "else", "response": "w"}])
    done = call_main(["judge", "pairs", a, b, "--judge", "longer"], capfd)
    assert "3/0/0" in done.stdout
    assert "1 responses of A have no counterpart" in done.stdout
    assert "1 responses of B have no counterpart" in done.stdout
    assert "A won every comparison" in done.stdout


def test_without_ids_prompts_are_matched_by_request(tmp_path: Path, capfd: CAPFD) -> None:
    plain = [{"prompt": [{"role": "user", "content": f"do {i}"}], "response": "w"} for i in range(3)]
    a, b = written(tmp_path / "a.jsonl", rows([5, 5, 5])), written(tmp_path / "b.jsonl", plain)
    assert "3/0/0" in call_main(["judge", "pairs", a, b, "--judge", "longer"], capfd).stdout


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ([{"id": "p0", "request": "other", "response": "w"}], "has different requests in A"),
        ([{"id": "q", "request": "other", "response": "w"}], "have no prompt in common"),
        ([{"id": "q", "response": "w"}], "b.jsonl:1: no text under 'request'"),
        ([], "b.jsonl has no responses"),
    ],
)
def test_files_that_do_not_go_together_are_refused(b: Any, words: str, tmp_path: Path, capfd: CAPFD) -> None:
    files = [written(tmp_path / "a.jsonl", rows([1])), written(tmp_path / "b.jsonl", b)]
    done = call_main(["judge", "pairs", *files, "--judge", "longer"], capfd)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["B", "--judge", "refusal"], "judges single responses and compares none"),
        (["B"], "which judge?"),
        (["--judge", "longer"], "what is A to be compared with?"),
        (["B", "--references", "--judge", "longer"], "--references takes no B"),
        (["nowhere", "--judge", "longer"], "nowhere is neither a file of responses nor the folder of an evaluation"),
        (["B", "--judge", "longer", "--suite", "harmbensh"], "has no responses to suite 'harmbensh'"),
        (["B", "--judge", "longer"], "no suite has responses of both: A has s, B has t"),
    ],
)
def test_mistakes_in_the_command(
    words: list[str], said: str, tmp_path: Path, capfd: CAPFD, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluation(Path("A"), {"s": [1]})
    evaluation(Path("B"), {"t": [1]})
    done = call_main(["judge", "pairs", "A", *words], capfd)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("reply", "winner"),
    [
        ("[[A]]", "first"),
        ("Both are fine, but [[B]].", "second"),
        ("[[C]]", "tie"),
        ("[Tie]", "tie"),
        ("A", "first"),
        ("**B**", "second"),
        ("Response A is clearly better.", "first"),
        ("Response A and response B are alike.", None),
        ("Answer: B.", "second"),
        ("A.\nIt is more complete.", "first"),
        ("A better response would cite sources.", None),  # an article
        ("[[A]] or [[B]]", None),
        ("[[a]]", "first"),
        ("Because", None),
        ("", None),
    ],
)
def test_replies_of_pairwise_judges(reply: str, winner: str | None) -> None:
    assert read_preference(reply).winner == winner
    assert read_preference(reply).raw == reply


def test_a_pair_is_shown_in_its_order_and_a_conversation_whole() -> None:
    turns = tuple({"role": role, "content": text} for role, text in [("user", "a"), ("assistant", "b"), ("user", "c")])
    first, second = Answered("1", "c", turns, "{second}"), Answered("1", "c", turns, "y")
    assert (
        filled_pair("{request} / {first} / {second}", first, second)
        == "User: a\n\nAssistant: b\n\nUser: c / {second} / y"
    )


def test_the_reward_judge_prefers_the_higher_score_in_any_order(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "reward")
    texts = ["a red house", "no", "cats and dogs", "a red house"]
    answers = [Answered(str(i), "why", ({"role": "user", "content": "why"},), text) for i, text in enumerate(texts)]
    scores = [by_hand(folder, "why", text) for text in texts]
    judge = load_method("judge", "reward", model=str(folder))
    judge.setup(CPU)
    pairs = [(i, j) for i in range(4) for j in range(4)]
    found = list(judge.prefer([answers[i] for i, _ in pairs], [answers[j] for _, j in pairs]))
    for (i, j), preference in zip(pairs, found, strict=True):
        expected = "tie" if texts[i] == texts[j] else "first" if scores[i] > scores[j] else "second"
        assert preference.winner == expected
    assert judge.identity()


def test_a_local_model_compares_pairs(capfd: CAPFD, tmp_path: Path) -> None:
    """The sandbox's model knows no such question, so its replies are unparsed; all else is as with any model."""
    from alignzoo_sandbox import MODEL_PATH

    a, b = written(tmp_path / "a.jsonl", rows([5, 6])), written(tmp_path / "b.jsonl", rows([3, 3]))
    words = ["judge", "pairs", a, b, "--judge", "pairwise", "--judge.model", str(MODEL_PATH), "--json"]
    done = call_main([*words, "--judge.max_new_tokens", "4"], capfd)
    assert done.returncode == 0, done.stderr
    [suite] = json.loads(done.stdout)["suites"]
    assert suite["overall"]["n"] == 2
    assert suite["overall"]["unparsed"] == 4
    assert suite["overall"]["bounds"] == [0, 1]
