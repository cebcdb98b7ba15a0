"""A conversation through a pipe: one message per line, responses on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
from pathlib import Path

from alignzoo_chat.commands import ALIASES, COMMANDS
from chat_helpers import Az

BREAD = "How do I bake bread?"


def test_messages_are_answered_and_commands_act_on_what_follows(az: Az, tmp_path: Path) -> None:
    saved, kept = tmp_path / "chat.json", tmp_path / "kept.md"
    typed = [
        BREAD,
        "/undo",
        "/undo",
        BREAD,
        "/temperature hot",
        "/temperature -1",
        "/temperature 0.9",
        "/seed 7",
        "A first line\\",
        "and a second",
        "/retry",
        "/hisory",
        "/quit now",
        '"""',
        "  verbatim",
        '"""',
        "/system Be brief.",
        "//slash",
        f"/save {saved}",
        f"/save {saved}",
        "/save chat.txt",
        "/quit",
        "not read any more",
    ]
    done = az("chat", "sandbox", "--max-new-tokens", "40", "--save", str(kept), typed="\n".join(typed))
    assert done.returncode == 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [error.partition(";")[0] for error in errors] == [
        "error: there is no turn to undo",
        "error: /temperature hot: not a number",
        "error: temperature is -1.0, expected 0 (greedy) or above",
        "error: unknown command /hisory",
        "error: /quit takes no value, but was given 'now'",
        f"error: {saved} exists",
        "error: chat.txt: a transcript is saved as .json or .md",
    ]
    assert "did you mean /history?" in done.stderr
    [conversation] = json.loads(saved.read_text(encoding="utf-8"))["conversations"]
    messages = conversation["messages"]
    assert [message["content"] for message in messages if message["role"] != "assistant"] == [
        "Be brief.",
        BREAD,
        "A first line\nand a second",
        "verbatim",
        "/slash",
    ]
    answers = [message for message in messages if message["role"] == "assistant"]
    assert [answer["decoding"]["temperature"] for answer in answers] == [0.0, 0.9, 0.9, 0.9]
    assert [answer["decoding"]["seed"] for answer in answers[1:]] == [8, 9, 10]  # 7 was that of the undone response
    for answer in answers:
        assert answer["content"].strip() in done.stdout
    assert "**User**\n\n/slash" in kept.read_text(encoding="utf-8")


def test_two_models_keep_their_own_conversations_and_the_oldest_turns_give_way(az: Az, tmp_path: Path) -> None:
    saved = tmp_path / "chat.json"
    long = f"Tell me a lot about bread, please. {BREAD} " * 4
    typed = [long, long, long, "/history", f"/save {saved}"]
    done = az("chat", "sandbox", "--against", "sandbox", "--max-new-tokens", "12", typed="\n".join(typed))
    assert done.returncode == 0
    assert "the oldest turn no longer fits the model's 256 positions" in done.stderr
    conversations = json.loads(saved.read_text(encoding="utf-8"))["conversations"]
    assert [one["label"] for one in conversations] == ["sandbox (1)", "sandbox (2)"]
    assert [len(one["messages"]) for one in conversations] == [6, 6]
    assert done.stdout.count("[sandbox (1)]") == done.stdout.count("[sandbox (2)]") == 4


def test_what_cannot_be_talked_to_is_refused_in_a_line(az: Az, tmp_path: Path) -> None:
    there = tmp_path / "there.md"
    there.write_text("mine")
    cases = {
        ("chat", "sandbox", "--save", str(there)): (2, "the file exists"),
        ("chat", "sandbox", "--save", "x.txt"): (2, "saved as .json or .md"),
        ("chat", "sandbox", "--top-p", "0"): (2, "--top-p"),
        ("chat", "sandbox", "--against", "base"): (1, "not the folder of a run"),
        ("chat", str(tmp_path)): (1, "no config.json"),
    }
    for words, (code, said) in cases.items():
        done = az(*words)
        assert done.returncode == code
        assert said in done.stderr
        assert len(done.stderr.splitlines()) <= 3
    assert there.read_text() == "mine"


def test_a_response_at_the_limit_says_so(az: Az, tmp_path: Path) -> None:
    saved = tmp_path / "chat.json"
    done = az("chat", "sandbox", typed=f"/max 5\n{BREAD}\n/max 100\n{BREAD}\n/save {saved}")
    assert done.stderr.count("(cut at 5 tokens; /max 10 allows more)") == done.stderr.count("(cut") == 1
    [conversation] = json.loads(saved.read_text(encoding="utf-8"))["conversations"]
    answers = [message for message in conversation["messages"] if message["role"] == "assistant"]
    assert [(answer["cut"], answer["stopped"]) for answer in answers] == [(True, False), (False, False)]


def test_the_page_names_the_commands_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "chat.md").read_text(encoding="utf-8")
    typed = set(re.findall(r"(?:^you> |`|; )/([a-z-]+)", page, re.MULTILINE)) - {"tempurature"}
    assert typed - set(ALIASES) == set(COMMANDS)
    transcript = page[page.index("$ alignzoo chat") : page.index("The first lines")]
    assert max(map(len, transcript.splitlines())) <= 80
