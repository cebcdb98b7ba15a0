"""``alignzoo generate``: prompts from files of several kinds, responses in their order, never generated twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chat_helpers import Az
from held import LINES, until_lines

from alignzoo.evaluate.folder import held
from alignzoo.report import Reporter

SHORT = ("--max-new-tokens", "12")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_prompts_of_every_kind_get_the_same_responses(az: Az, tmp_path: Path) -> None:
    texts = ["How do I bake bread?", "Name a colour."]
    turns = [[{"role": "user", "content": text}] for text in texts]
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"id": f"row {text[0]}", "prompt": text}) + "\n" for text in texts)
    )
    (tmp_path / "c.json").write_text(
        json.dumps([{"messages": [*turn, {"role": "assistant", "content": "x"}]} for turn in turns])
    )
    (tmp_path / "d.csv").write_text("question\n" + "\n".join(texts))
    (tmp_path / "e.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "chosen": [*turn, {"role": "assistant", "content": "a"}],
                    "rejected": [*turn, {"role": "assistant", "content": "b"}],
                }
            )
            + "\n"
            for turn in turns
        )
    )
    found = []
    for name, more in (
        ("a.txt", ()),
        ("b.jsonl", ()),
        ("c.json", ()),
        ("d.csv", ("--column", "question")),
        ("e.jsonl", ()),
    ):
        done = az("generate", "sandbox", "--prompts", str(tmp_path / name), *SHORT, *more, "--json")
        assert done.returncode == 0, done.stderr
        found.append([json.loads(line) for line in done.stdout.splitlines()])
    assert all([line["response"] for line in lines] == [line["response"] for line in found[0]] for lines in found)
    assert [line["prompt"] for line in found[0]] == texts
    assert [line["id"] for line in found[1]] == ["row H", "row N"]
    assert [line["messages"] for line in found[2]] == turns
    piped = az("generate", "sandbox", "--prompts", "-", *SHORT, typed="\n".join(texts))
    assert [f"[{i}] {text}\n{found[0][i]['response']}" in piped.stdout for i, text in enumerate(texts)] == [True, True]


def copied(words: list[str], whole: Path, out: Path) -> bytes:
    """A file with the first responses alone, as a kill leaves it; its content."""
    for path in whole.parent.glob("whole*"):
        shutil.copy(path, out.with_name(path.name.replace("whole", "out", 1)))
    return b"".join(whole.read_bytes().splitlines(keepends=True)[:5])


def killed(words: list[str], whole: Path, out: Path) -> bytes:
    """The file of a process that was killed after its first response; its content."""
    line = [sys.executable, "-c", LINES, *words, str(out)]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "HOLD_AT": "1"})
    until_lines(out, 1, process)
    process.kill()
    process.wait()
    return out.read_bytes()


@pytest.mark.parametrize("torn", [copied, pytest.param(killed, marks=pytest.mark.slow)])
def test_a_killed_command_resumes_and_other_responses_are_not_mixed_in(torn: Any, az: Az, tmp_path: Path) -> None:
    prompts, out, whole = tmp_path / "p.txt", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    prompts.write_text("".join(f"Prompt {i}: how do I bake bread?\n" for i in range(16)))
    words = ["generate", "sandbox", "--prompts", str(prompts), *SHORT, "--batch-size", "1", "--out"]
    assert az(*words, str(whole)).returncode == 0
    before = torn(words, whole, out)
    assert 0 < before.count(b"\n") < 16
    out.write_bytes(before + b'{"index": 15, "sam')  # what a full disk or a power cut leaves
    done = az(*words, str(out), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["generated"] == 16 - before.count(b"\n")
    assert out.read_bytes() == whole.read_bytes()
    assert json.loads(az(*words, str(out), "--json").stdout)["generated"] == 0

    refused = az(*words, str(out), "--temperature", "1")
    assert refused.returncode == 2
    assert "decoding.temperature 0.0, not 1.0" in refused.stderr
    replaced = az(*words, str(out), "--temperature", "1", "--overwrite", "--limit", "2", "--n", "3")
    assert replaced.returncode == 0
    lines = lines_of(out)
    assert [(line["index"], line["sample"]) for line in lines] == [(i, k) for i in range(2) for k in range(3)]
    assert len({line["response"] for line in lines[:3]}) > 1


def test_bad_prompts_and_places_are_named(az: Az, tmp_path: Path) -> None:
    good, bad, empty, blank = (tmp_path / name for name in ("good.txt", "bad.jsonl", "empty.txt", "blank.jsonl"))
    good.write_text("Hello\n")
    bad.write_text('{"prompt": "a"}\n{"prompt": \n')
    empty.write_text("\n \n")
    blank.write_text('{"prompt": "a"}\n{"prompt": " "}\n')
    (tmp_path / "mine.jsonl").write_text("mine")
    (tmp_path / "other.json").write_text("mine")
    cases = {
        ("--prompts", str(tmp_path / "no.txt")): (1, "No such file"),
        ("--prompts", str(bad)): (1, f"{bad}:2"),
        ("--prompts", str(empty)): (1, "contains no prompts"),
        ("--prompts", str(blank)): (1, f"{blank}:2: the prompt is empty"),
        ("--prompts", str(blank), "--column", "question"): (1, "its columns: prompt"),
        ("--prompts", str(good), "--n", "2"): (2, "same greedy response"),
        ("--prompts", str(good), "--batch-size", "0"): (2, "--batch-size 0"),
        ("--prompts", str(good), "--overwrite"): (2, "without --out"),
        ("--prompts", str(good), "--out", str(tmp_path / "x.txt")): (2, "JSON lines"),
        ("--prompts", str(good), "--out", str(tmp_path / "no" / "x.jsonl")): (2, "there is no folder"),
        ("--prompts", str(good), "--out", str(tmp_path / "mine.jsonl")): (2, "is not of this command"),
        ("--prompts", str(good), "--out", str(tmp_path / "other.jsonl"), "--overwrite"): (2, "other.json exists"),
        ("--prompts", str(blank), "--out", str(blank)): (2, "would replace the prompts"),
    }
    for words, (code, said) in cases.items():
        done = az("generate", "sandbox", *words)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
    assert (tmp_path / "mine.jsonl").read_text() == (tmp_path / "other.json").read_text() == "mine"


def test_a_second_process_on_the_same_file_is_refused(az: Az, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("How do I bake bread?\n")
    words = ("generate", "sandbox", "--prompts", str(tmp_path / "p.txt"), "--max-new-tokens", "2", "--out")
    with held(tmp_path, Reporter(), "r.jsonl"):
        refused = az(*words, str(tmp_path / "r.jsonl"))
        assert refused.returncode == 2
        assert f"{tmp_path / 'r.jsonl'} is in use by process" in refused.stderr
        assert az(*words, str(tmp_path / "other.jsonl")).returncode == 0
    assert az(*words, str(tmp_path / "r.jsonl")).returncode == 0
    assert not list(tmp_path.glob(".*"))
