"""Preferences by a model behind an endpoint, through ``alignzoo judge pairs``: kept, resumed, and without a key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import serving
from in_process import call_main

KEY = "sk-test-0123456789abcdef"
TEMPLATE = "{request}|{first}|{second}"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "*")


def written(path: Path, quality: int, n: int = 12) -> Path:
    """Responses of a model: the number is how good they are."""
    rows = [{"id": str(i), "request": f"question {i}", "response": f"{quality * (i % 3)}"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def better(message: str, _before: int = 0) -> dict[str, Any]:
    """The higher number wins."""
    _, first, second = message.split("|")
    return {"text": f"[[{'A' if int(first) > int(second) else 'B'}]]"}


def test_a_failing_endpoint_resumes_and_the_key_is_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a.jsonl", 5), written(tmp_path / "b.jsonl", 3)
    down = {"status": 500, "body": f"rejected {KEY}"}
    with serving(lambda message, _: down if message.startswith("question 7|") else better(message)) as endpoint:
        words = ["judge", "pairs", str(a), str(b), "--judge", "endpoint-pairwise", "--debug"]
        options = {"url": endpoint.url, "model": "m", "template": TEMPLATE, "backoff": "0.01"}
        words += [word for name, value in options.items() for word in (f"--judge.{name}", value)]
        failed = call_main([*words, "--judge.retries", "0"], capfd)
        assert failed.returncode == 1
        assert "error: judge endpoint-pairwise stopped after 8 of 16 requests" in failed.stderr
        assert "[key]" in failed.stderr
        endpoint.behaviour = better
        capped = call_main([*words, "--judge.max_requests", "1"], capfd)  # an option of cost: the verdicts stay
        assert "the cap of 1 requests is reached" in capped.stderr
        done = call_main([*words, "--json"], capfd)
    assert done.returncode == 0, done.stderr
    assert set(endpoint.served.values()) == {1}  # each pair once in each order, over three commands
    assert len(endpoint.served) == 16  # eight pairs: in four, both responses are "0" and tie unasked
    [suite] = json.loads(done.stdout)["suites"]
    assert (suite["equal"], suite["overall"]["wins"], suite["overall"]["ties"]) == (4, 8, 4)
    assert suite["overall"]["consistency"]["value"] == 1
    everything = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(everything) >= 5
    assert not any(KEY.encode() in content for content in everything)
    assert not any(KEY in shown for one in (failed, capped, done) for shown in (one.stdout, one.stderr))
    assert all(re.search(r"Bearer sk-test", headers["Authorization"]) for headers in endpoint.headers)


def test_what_cannot_be_read_counts_as_a_tie_and_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a.jsonl", 5, 3), written(tmp_path / "b.jsonl", 3, 3)
    words = ["judge", "pairs", str(a), str(b), "--judge", "endpoint-pairwise", "--judge.model", "m"]
    with serving(lambda message, _: better(message) if "|5|3" in message else {"text": "Hm."}) as endpoint:
        done = call_main([*words, "--judge.url", endpoint.url, "--judge.template", TEMPLATE], capfd)
    assert done.returncode == 0, done.stderr
    assert (
        "3 of 6 verdicts could not be parsed and count as ties: the win rate is 0.333 if all are losses" in done.stdout
    )


def test_an_endpoint_needs_a_url(capfd: pytest.CaptureFixture[str]) -> None:
    done = call_main(["judge", "pairs", "a", "b", "--judge", "endpoint-pairwise", "--judge.model", "m"], capfd)
    assert done.returncode == 2
    assert "needs --judge.url: base url of the API" in done.stderr
