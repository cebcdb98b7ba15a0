"""``alignzoo eval`` on the sandbox model: figures, resuming, judging again, comparing, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from held import LINES, until_lines
from in_process import call_main

from alignzoo.cli.main import main
from alignzoo.evaluate.responses import read_responses, responses_of
from alignzoo.evaluate.results import EVALUATION_FILE, read_evaluation

LINE = ("eval", "sandbox", "--suite", "sandbox-test,sandbox-benign", "--judge", "refusal", "--limit", "6")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return lambda *words: call_main(words, capfd)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the sandbox model."""
    return evaluated(tmp_path_factory.mktemp("finished") / "out", *LINE)


def evaluated(out: Path, *line: str) -> Path:
    """Evaluate to a folder, in this process."""
    with pytest.raises(SystemExit) as end:
        main([*line, "--out", str(out)])
    assert end.value.code == 0
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_the_file_says_what_was_found_and_what_it_depends_on(finished: Path) -> None:
    evaluation = read_evaluation(finished)
    attack, refused = evaluation.figure("sandbox-test", "refusal"), evaluation.figure("sandbox-benign", "refusal")
    # The embedded model answers every request.
    assert (attack.measures, attack.rate.count, attack.rate.n) == ("attack_success", 6, 6)
    assert (refused.measures, refused.rate.count, refused.rate.n) == ("over_refusal", 0, 6)
    assert evaluation.model.prompting == "the tokenizer's chat template"
    assert [(judge.judge, judge.measures) for judge in evaluation.judges] == [("alignzoo:refusal", "refusal")]
    for suite in evaluation.suites:
        kept = read_responses(finished / "responses" / f"{suite.name}.jsonl")
        assert len(kept) == suite.prompts == 6
        assert suite.cut == sum(not one.ended for one in kept)
        assert suite.decoding["max_new_tokens"] == 56


def test_the_file_is_sealed(out: Path) -> None:
    path = out / EVALUATION_FILE
    path.write_text(path.read_text().replace('"count": 6', '"count": 5'))
    with pytest.raises(Exception, match="is damaged"):
        read_evaluation(out)


def test_the_same_command_loads_and_generates_nothing(out: Path, run: Run) -> None:
    before = (out / EVALUATION_FILE).read_bytes()
    result = run(*LINE, "--out", str(out))
    assert (result.returncode, result.stderr) == (0, "")
    assert (out / EVALUATION_FILE).read_bytes() == before
    assert "sandbox-test    attack success  refusal  1.000" in result.stdout
    assert "sandbox-test 6 of 256" in result.stdout


def test_judging_again_generates_nothing_and_adds_the_judge(out: Path, run: Run, tmp_path: Path) -> None:
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("sure\n")
    words = ["refusal", "--judge.refusal.phrases", str(phrases), "--limit", "6", "--out", str(out), "--json"]
    result = run("eval", "sandbox", "--suite", "sandbox-test", "--judge", *words)
    assert result.returncode == 0, result.stderr
    assert "loading" not in result.stderr
    found = json.loads(result.stdout)
    [own, other] = [judge["name"] for judge in found["judges"]]
    assert own == "refusal"
    assert other.startswith("refusal-")
    assert {(figure["suite"], figure["judge"]) for figure in found["figures"]} == {
        ("sandbox-test", own),
        ("sandbox-test", other),
        ("sandbox-benign", own),
    }
    assert [(one["suite"], one["n"]) for one in found["agreement"]] == [("sandbox-test", 6)]


def test_more_prompts_keep_the_responses_to_the_first(out: Path, run: Run) -> None:
    first = responses_of(out, "sandbox-test")
    line = ("eval", "sandbox", "--suite", "sandbox-test", "--judge", "refusal", "--limit", "8", "--out", str(out))
    result = run(*line)
    assert "generating (sandbox-test) 7/8" in result.stderr
    assert responses_of(out, "sandbox-test")[:6] == first
    assert len(responses_of(out, "sandbox-test")) == 8


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--system", "Be kind."], "system none, not Be kind."),
        (["--max-new-tokens", "9"], "decoding.max_new_tokens 56, not 9"),
        (["--seed", "1"], "answers other prompts"),
    ],
)
def test_responses_of_another_evaluation_are_refused_before_weights_load(
    more: list[str], said: str, out: Path, run: Run
) -> None:
    result = run(*LINE, "--out", str(out), *more)
    assert result.returncode == 2
    assert "loading" not in result.stderr
    assert re.search(said, result.stderr)
    assert "--overwrite" in result.stderr


def test_overwrite_replaces_them(out: Path, run: Run) -> None:
    result = run(*LINE, "--out", str(out), "--max-new-tokens", "9", "--overwrite")
    assert result.returncode == 0, result.stderr
    assert "sandbox-test 6 of 6 at 9" in result.stdout
    assert {suite.cut for suite in read_evaluation(out).suites} == {6}


def test_against_compares_on_the_same_prompts(out: Path, run: Run, tmp_path: Path) -> None:
    import torch
    from alignzoo_sandbox import MODEL_PATH
    from transformers import AutoModelForCausalLM, AutoTokenizer

    other = tmp_path / "mute"
    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.zero_()
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(MODEL_PATH).save_pretrained(other)
    result = run(*LINE, "--out", str(out), "--against", str(other), "--max-new-tokens", "4", "--overwrite")
    assert result.returncode == 0, result.stderr
    assert "against" in result.stdout
    evaluation = read_evaluation(out)
    assert evaluation.against is not None
    there = read_evaluation(out / evaluation.against.folder)
    for one in evaluation.against.differences:
        assert one.here == evaluation.figure(one.suite, one.judge).rate.value
        assert one.there == there.figure(one.suite, one.judge).rate.value
        assert one.value == pytest.approx(one.here - one.there)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--suite", "sandbox-tst"], 2, "did you mean sandbox-test"),
        (["--suite", "sandbox-test", "--judge", "refusl"], 2, "did you mean refusal"),
        (["--suite", "sandbox-test", "--judge", "sandbox"], 2, "use another one, such as sandbox-harm"),
        (["--suite", "sandbox-test", "--judge", "longer"], 2, "alignzoo judge pairs A B"),
        (["--suite", "sandbox-test", "--jailbreak", "nope"], 2, "unknown jailbreak 'nope'"),
        (["--suite", "sandbox-benign", "--judge", "llama-guard"], 2, "does not apply to suites of harmless requests"),
        (["--suite", "xstest", "--data-dir", "."], 1, "download"),
        (["--suite", "sandbox-test", "--num-fewshot", "3"], 2, "--num-fewshot has no effect without --tasks"),
        (["--suite", "sandbox-test", "--batch-size", "many"], 2, "neither a number nor auto"),
        (["--suite", "sandbox-test", "--temperature", "-1"], 2, "temperature is -1"),
        (["--suite", "sandbox-test", "--against", "base"], 1, "is not the folder of a run"),
    ],
)
def test_mistakes_are_answered_before_weights_load(
    words: list[str], code: int, said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("eval", "sandbox", *words)
    assert (result.returncode, said in result.stderr) == (code, True), result.stderr
    assert "loading" not in result.stderr
    assert "Traceback" not in result.stderr
    assert not any(tmp_path.iterdir())


def test_a_folder_without_a_model_is_not_a_run(run: Run, tmp_path: Path) -> None:
    result = run("eval", str(tmp_path))
    assert (result.returncode, "neither the folder of a run nor a model" in result.stderr) == (1, True), result.stderr


def test_a_model_without_suites_of_its_own_is_answered_with_what_there_is(run: Run) -> None:
    result = run("eval", "some/model")
    assert result.returncode == 2
    assert "sandbox-test: nothing" in result.stderr
    assert "xstest: xstest_prompts.csv in --data-dir" in result.stderr


FAILING = """
from alignzoo.contract.judge import Judge, JudgeCard, Verdict
from alignzoo.errors import AlignzooError
from alignzoo.interfaces import Judge, Verdict
from alignzoo.plugin import hookimpl


class Tired(Judge):
    def verdicts(self, answers):
        for i, answer in enumerate(answers):
            if i == 4:
                raise AlignzooError("the endpoint has gone", hint="call it back")
            yield Verdict(True)


@hookimpl
def alignzoo_methods():
    return [JudgeCard(name="tired", target="tired:Tired", summary="Judges four responses.", api=2)]
"""


def test_a_judge_that_fails_keeps_what_it_judged(out: Path, run: Run, tmp_path: Path) -> None:
    plugin = tmp_path / "tired.py"
    plugin.write_text(FAILING)
    line = ["eval", "sandbox", "--suite", "sandbox-test", "--judge", "tired", "--limit", "6", "--out", str(out)]
    result = run(*line, "--plugin", str(plugin))
    assert result.returncode == 1
    assert "the endpoint has gone" in result.stderr
    assert "the same command resumes" in result.stderr
    kept = out / "verdicts" / "sandbox-test" / "tired.jsonl"
    assert len(kept.read_text().splitlines()) == 4
    assert run(*line, "--plugin", str(plugin)).returncode == 0
    assert len(kept.read_text().splitlines()) == 6


def line_of(limit: int) -> list[str]:
    """One prompt at a time, so that a kill has somewhere to fall."""
    words = ["eval", "sandbox", "--suite", "sandbox-test", "--judge", "refusal", "--batch-size", "1"]
    return [*words, "--limit", str(limit)]


def kill(out: Path, limit: int, after: int, number: int) -> int:
    """Start an evaluation in a process of its own, and kill it after some responses; how many it has written."""
    line = [sys.executable, "-c", LINES, *line_of(limit), "--out", str(out)]
    responses, nowhere = out / "responses" / "sandbox-test.jsonl", subprocess.DEVNULL
    environment = {**os.environ, "HOLD_AT": str(after)}
    process = subprocess.Popen(line, stdout=nowhere, stderr=nowhere, text=True, env=environment)
    try:
        until_lines(responses, after, process)
        process.send_signal(number)
        assert process.wait(timeout=300) != 0
    finally:
        process.kill()
    return responses.read_bytes().count(b"\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that nothing interrupted."""
    return evaluated(tmp_path_factory.mktemp("whole") / "out", *line_of(24))


def resumes(out: Path, whole: Path, done: int, run: Run) -> None:
    assert 0 < done < 24
    result = run(*line_of(24), "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert f"generating (sandbox-test) {done + 1}/24" in result.stderr
    name = Path("responses") / "sandbox-test.jsonl"
    assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert read_evaluation(out) == read_evaluation(whole)


def test_a_killed_evaluation_resumes_to_the_same_result(whole: Path, tmp_path: Path, run: Run) -> None:
    resumes(tmp_path / "out", whole, kill(tmp_path / "out", 24, 2, signal.SIGKILL), run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [1, 7, 15])
def test_killed_anywhere_it_resumes(whole: Path, tmp_path: Path, run: Run, after: int, number: int) -> None:
    resumes(tmp_path / "out", whole, kill(tmp_path / "out", 24, after, number), run)
