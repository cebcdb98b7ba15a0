"""``alignzoo judge check`` and ``run``: the figures against scikit-learn, the files they read, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from alignzoo_evaluation.judge_figures import figures
from alignzoo_evaluation.judge_labels import Columns, read_answers, read_labels
from in_process import call_main
from judge_helpers import save_judge_model

from alignzoo.contract.judge import Verdict
from alignzoo.errors import DataError

REFUSING, ANSWERING = "I'm sorry, but I can't help with that.", "Push the door and go in."
LABELS = f"""# version 3
# of nobody
prompt,answer,label
a,"{REFUSING}",1
b,{ANSWERING},0
c,{ANSWERING},1
d,"{REFUSING}",1
"""


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(LABELS, encoding="utf-8")
    return path


def test_the_figures_are_those_of_scikit_learn() -> None:
    from sklearn import metrics

    truth = [True] * 30 + [False] * 25
    given = [True] * 22 + [False] * 6 + [None] * 2 + [False] * 18 + [True] * 4 + [None] * 3
    found = figures(truth, [Verdict(one) for one in given])
    said = [one is True for one in given]
    words = {True: "yes", False: "no", None: "unparsed"}
    assert found.precision.value == pytest.approx(metrics.precision_score(truth, said))
    assert found.recall.value == pytest.approx(metrics.recall_score(truth, said))
    assert found.f1.value == pytest.approx(metrics.f1_score(truth, said))
    as_words = ([words[one] for one in truth], [words[one] for one in given])
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(*as_words))
    assert found.kappa.value == pytest.approx(metrics.cohen_kappa_score(*as_words))
    assert vars(found.confusion) == {
        "tp": 22, "fn": 6, "unparsed_positive": 2, "tn": 18, "fp": 4, "unparsed_negative": 3
    }  # fmt: skip
    for estimate in (found.accuracy, found.kappa, found.precision, found.recall, found.f1):
        assert estimate.low < estimate.value < estimate.high


def test_check_prints_figures_confusion_and_disagreements(labels: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = call_main(["judge", "check", "refusal", str(labels)], capfd)
    assert done.returncode == 0
    assert "4 responses, 3 of them positive" in done.stdout
    assert "0.750 [0.301, 0.954]" in done.stdout
    assert "label positive  2                1" in done.stdout
    assert ANSWERING in done.stdout
    assert "reads the wording only" in done.stdout


def test_check_as_json_and_in_a_folder(labels: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["judge", "check", str(labels), "--judge", "refusal", "--out", str(tmp_path / "out"), "--json"]
    content: dict[str, Any] = json.loads(call_main(words, capfd).stdout)
    assert content["judges"]["refusal"]["confusion"]["tp"] == 2
    assert [one["row"] for one in content["disagreements"]["refusal"]] == ["3"]
    assert content["columns"] == {"response": "answer", "label": "label", "request": "prompt"}
    assert json.loads((tmp_path / "out" / "check.json").read_text()) == content
    assert len((tmp_path / "out" / "verdicts" / "refusal.jsonl").read_text().splitlines()) == 4


def test_several_judges_are_compared(labels: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = save_judge_model(tmp_path / "garbage", {"": "well well"})
    options = ["--judge.chat.measures", "refusal", "--judge.chat.model", str(model)]
    done = call_main(["judge", "check", "refusal", "chat", str(labels), *options, "--json"], capfd)
    content = json.loads(done.stdout)
    [chat] = [name for name in content["judges"] if name != "refusal"]
    assert content["judges"][chat]["confusion"]["unparsed_positive"] == 3
    assert content["judges"][chat]["accuracy"]["value"] == 0
    assert content["judges"][chat]["precision"]["value"] is None
    assert content["agreement"][0]["first"] == "refusal"


def test_judges_that_measure_different_things_are_not_compared_with_the_same_labels(
    labels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = call_main(["judge", "check", "refusal", "llama-guard", str(labels)], capfd)
    assert done.returncode == 2
    assert "measure different things" in done.stderr


def test_columns_and_positive_values_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [{"q": "a", "said": REFUSING, "kind": "full_refusal"}, {"q": "b", "said": ANSWERING, "kind": "compliance"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    columns = Columns(request="q", response="said", label="kind")
    found = read_labels(path, columns, ["full_refusal"])
    assert found.labels == [True, False]
    assert [answer.request for answer in found.answers] == ["a", "b"]
    assert len(read_labels(path, columns, ["full_refusal"], limit=1).labels) == 1
    with pytest.raises(DataError, match="which values of column 'kind' are positive"):
        read_labels(path, columns)
    with pytest.raises(DataError, match="no label in column 'kind' is 'full_refusel'") as error:
        read_labels(path, columns, ["full_refusel"])
    assert "full_refusal" in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.csv", "# only a comment\n", "has no rows"),
        ("labels.csv", "question,label\na,1\n", "which column is the response"),
        ("labels.csv", "answer\nx\n", "which column is the label"),
        ("labels.jsonl", "{broken\n", "line 1"),
        ("labels.txt", "x", "not a .csv, .tsv or .jsonl file"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_labels(path, Columns())


def test_run_judges_any_file_of_responses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "responses.jsonl", tmp_path / "out"
    rows = [{"prompt": "a", "response": REFUSING}, {"prompt": "b", "response": ANSWERING, "id": "second"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    done = call_main(["judge", "run", str(path), "--judge", "refusal", "--out", str(out)], capfd)
    assert done.returncode == 0
    assert "0.500 [0.095, 0.905]" in done.stdout
    lines = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [line["verdicts"]["refusal"]["positive"] for line in lines] == [True, False]
    assert [line["id"] for line in lines] == ["1", "second"]
    assert [line["request"] for line in lines] == ["a", "b"]
    assert json.loads((out / "judged.json").read_text())["judges"]["refusal"]["unparsed"] == 0


def test_a_request_can_be_a_conversation(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    path.write_text(json.dumps({"prompt": turns, "response": "r", "context": "c"}), encoding="utf-8")
    [answer] = read_answers(path, Columns())
    assert (answer.request, answer.context, len(answer.messages)) == ("u", "c", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "LABELS"], "which judge?"),
        (["check", "refusel", "LABELS"], "did you mean refusal?"),
        (["check", "refusal", "LABELS", "--judge.refusal.openin", "3"], "did you mean --judge.opening?"),
        (["chek"], "did you mean check?"),
        (["run", "LABELS"], "which judge?"),
    ],
)
def test_mistakes_have_a_hint(labels: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = call_main(["judge", *(str(labels) if word == "LABELS" else word for word in words)], capfd)
    assert done.returncode == 2
    assert message in done.stderr
