"""The judge behind an endpoint, against a real server that fails, delays and lies."""

from __future__ import annotations

import json
import random
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from alignzoo_judges.endpoint import CARD
from alignzoo_judges.endpoint import Endpoint as EndpointJudge
from endpoint_server import Behaviour, Endpoint, serving

from alignzoo.contract.judge import Answered, JudgeContext, Verdict
from alignzoo.errors import AlignzooError, ModelError, UsageError
from alignzoo.plugin.build import build_options
from alignzoo.report import Reporter
from alignzoo.testing.offline import without_network

KEY = "sk-test-0123456789abcdef"
TEMPLATE = "{response}"


class Heard(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "*")


def answers(n: int) -> list[Answered]:
    return [Answered(str(i), f"request {i}", (), f"response {i}") for i in range(n)]


def number(message: str) -> int:
    return int(message.split()[-1])


def yes_if_even(message: str, _before: int = 0) -> dict[str, Any]:
    return {
        "text": "Yes." if number(message) % 2 == 0 else "no",
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
    }


def failing(which: int, failure: dict[str, Any], others: Behaviour) -> Behaviour:
    """One of four connections fails, once the other three have asked for four later ones: one of those is there."""
    ahead = threading.Event()

    def behave(message: str, before: int) -> dict[str, Any]:
        if number(message) == which:
            assert ahead.wait(60)
            return failure
        if number(message) == which + 4:
            ahead.set()
        return others(message, before)

    return behave


def judge(endpoint: Endpoint, report: Reporter | None = None, **options: Any) -> Any:
    import torch

    values = {"url": endpoint.url, "model": "m", "template": TEMPLATE, "backoff": 0.01, **options}
    made = EndpointJudge(build_options(CARD, values))
    made.setup(JudgeContext(torch.device("cpu"), report or Reporter()))
    return made


def given(verdicts: Iterator[Verdict]) -> tuple[list[Verdict], AlignzooError | None]:
    """The verdicts up to the end, or up to an error."""
    found: list[Verdict] = []
    try:
        for verdict in verdicts:
            found.append(verdict)
    except AlignzooError as error:
        return found, error
    return found, None


def test_a_request_is_what_the_options_say() -> None:
    report = Heard()
    with serving(yes_if_even) as endpoint:
        made = judge(endpoint, report, system="Be strict.", max_tokens=7)
        [verdict] = made.verdicts(answers(1))
        made.close()
    assert verdict == Verdict(True, raw="Yes.")
    assert endpoint.bodies == [
        {
            "model": "m",
            "temperature": 0.0,
            "max_tokens": 7,
            "messages": [{"role": "system", "content": "Be strict."}, {"role": "user", "content": "response 0"}],
        }
    ]
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"
    host = endpoint.url.split("/")[2]
    assert [line for line in report.lines if "sent to" in line] == [
        f"judge endpoint: requests and responses are sent to {host}"
    ]


def test_an_endpoint_without_a_key_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    report = Heard()
    with serving(yes_if_even) as endpoint:
        assert len(list(judge(endpoint, report).verdicts(answers(1)))) == 1
    assert "Authorization" not in endpoint.headers[0]
    assert "OPENAI_API_KEY is not set" in report.lines[0]


@pytest.mark.parametrize(("measures", "word"), [("refusal", "decline"), ("harm", "harmful")])
def test_without_a_template_it_asks_about_what_it_measures(measures: str, word: str) -> None:
    with serving(lambda *_: {"text": "no"}) as endpoint:
        made = judge(endpoint, template=None, measures=measures)
        assert list(made.verdicts(answers(1))) == [Verdict(False, raw="no")]
    asked = endpoint.bodies[0]["messages"][0]["content"]
    assert word in asked
    assert "request 0" in asked
    assert "response 0" in asked


LIES = [
    {"body": "<html>busy</html>"},
    {"body": '{"choices": ['},
    {"body": '{"choices": []}'},
    {"body": '{"choices": [{"message": {"content": null}}]}'},
    {"body": "[1, 2]"},
    {"body": '{"choices": [{"message": {"content": "half a character: \\ud83d"}}]}'},
    {"text": "Who knows?", "usage": {"prompt_tokens": 10**400, "completion_tokens": -1}},
    {"text": "I had rather say nothing."},
    {"status": 400, "body": '{"error": {"message": "content filter"}}'},
]
FAULTS = [
    {"status": 500, "body": "oh"},
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 503},
    {"reset": True},
]


@pytest.mark.parametrize("seed", range(3))
def test_failures_are_tried_again_and_lies_are_unparsed_in_order(seed: int) -> None:
    rng = random.Random(seed)
    lies = {i: rng.choice(LIES) for i in range(60) if rng.random() < 0.2}
    faults = {i: [rng.choice(FAULTS) for _ in range(rng.randrange(4))] for i in range(60)}
    delays = [rng.uniform(0, 0.02) for _ in range(60)]

    def behave(message: str, before: int) -> dict[str, Any]:
        i = number(message)
        if before < len(faults[i]):
            return faults[i][before]
        return {**lies.get(i, yes_if_even(message)), "delay": delays[i]}

    with serving(behave) as endpoint:
        found = list(judge(endpoint, concurrency=5).verdicts(answers(60)))
    assert [verdict.positive for verdict in found] == [None if i in lies else i % 2 == 0 for i in range(60)]
    assert all(verdict.raw.encode() for verdict in found)  # what came instead, for people
    assert endpoint.most_at_once <= 5
    assert endpoint.seen == {f"response {i}": 1 + len(faults[i]) for i in range(60)}


def test_after_a_failure_nothing_is_judged_twice(tmp_path: Path) -> None:
    """Request 20 fails for good while later ones are answered; when it works again, only it and the rest are sent."""
    behave = failing(20, {"status": 500, "body": f"key {KEY} rejected"}, yes_if_even)
    with serving(behave) as endpoint:
        first, error = given(judge(endpoint, retries=2, concurrency=4).verdicts(answers(50)))
        assert len(first) == 20
        assert error is not None
        assert "stopped after 20 of 50 requests" in error.message
        assert "failed 3 times (status 500: key [key] rejected)" in error.message
        assert "start the same command again" in str(error.hint)
        ahead = endpoint.requests - 20 - 3
        assert ahead > 0
        endpoint.behaviour = yes_if_even
        second, error = given(judge(endpoint).verdicts(answers(50)[20:]))
    assert error is None
    assert [verdict.positive for verdict in first + second] == [i % 2 == 0 for i in range(50)]
    assert set(endpoint.served.values()) == {1}
    assert not list((tmp_path / "cache" / "judge-replies").iterdir())  # nothing stays behind


def test_an_endpoint_that_is_not_there_says_so() -> None:
    with serving(yes_if_even) as endpoint:
        there = judge(endpoint, retries=1)
    _, error = given(there.verdicts(answers(3)))  # it went away
    assert "no connection: [Errno" in str(error)
    with pytest.raises(ModelError, match="cannot be reached: Connection refused"):
        judge(endpoint)


def test_a_slow_endpoint_is_given_up_on() -> None:
    with serving(lambda *_: {"text": "yes", "delay": 0.6}) as endpoint:
        _, error = given(judge(endpoint, retries=0, timeout=0.2).verdicts(answers(1)))
    assert "no answer in time" in str(error)


@pytest.mark.parametrize("as_date", [False, True])
def test_a_pause_that_the_server_asks_for_is_kept(as_date: bool) -> None:
    def behave(message: str, before: int) -> dict[str, Any]:
        pause = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
        return yes_if_even(message) if before else {"status": 429, "headers": {"Retry-After": pause}}

    with serving(behave) as endpoint:
        assert len(list(judge(endpoint).verdicts(answers(1)))) == 1
    assert endpoint.times[1] - endpoint.times[0] >= 0.9


def test_a_pause_that_is_too_long_ends_the_command() -> None:
    with serving(lambda *_: {"status": 429, "headers": {"Retry-After": "86400"}}) as endpoint:
        _, error = given(judge(endpoint).verdicts(answers(1)))
    assert "asks to wait 86400 s" in str(error)
    assert endpoint.requests == 1


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ({"status": 401, "body": f'{{"error": {{"message": "bad key {KEY}"}}}}'}, "status 401: bad key [key]"),
        ({"status": 404, "body": "no such model"}, "status 404: no such model"),
        ({"status": 302, "headers": {"Location": "https://elsewhere.example/"}}, "redirects elsewhere"),
        ({"body": f"<html>hello {KEY}</html>"}, "no chat completions: <html>hello [key]"),
    ],
)
def test_an_endpoint_that_is_not_usable_says_so_at_once(action: dict[str, Any], words: str) -> None:
    with serving(lambda *_: action) as endpoint:
        found, error = given(judge(endpoint, concurrency=1).verdicts(answers(30)))
    assert found == []
    assert isinstance(error, ModelError)
    assert words in str(error)
    assert KEY not in str(error)
    assert endpoint.requests <= 9  # none again


def test_a_redirect_takes_no_key_anywhere() -> None:
    with serving(yes_if_even) as other:
        away = {"status": 307, "headers": {"Location": f"{other.url}/chat/completions"}}
        with serving(lambda *_: away) as endpoint:
            given(judge(endpoint).verdicts(answers(1)))
    assert other.requests == 0


def test_a_server_on_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    with serving(yes_if_even) as proxy, serving(yes_if_even) as endpoint:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert len(list(judge(endpoint).verdicts(answers(1)))) == 1
    assert (proxy.requests, endpoint.requests) == (0, 1)


def test_a_check_contacts_no_endpoint() -> None:
    with serving(yes_if_even) as endpoint, without_network(), pytest.raises(ModelError, match="contacts nothing"):
        judge(endpoint)
    assert endpoint.requests == 0


def test_the_usual_key_goes_nowhere_unencrypted() -> None:
    with pytest.raises(UsageError, match=r"OPENAI_API_KEY would go to gpu\.invalid:8000 unencrypted") as refused:
        judge(Endpoint("http://gpu.invalid:8000/v1", yes_if_even))
    assert KEY not in str(refused.value)


def test_the_cap_on_requests_holds_and_counts_retries() -> None:
    def behave(message: str, before: int) -> dict[str, Any]:
        return yes_if_even(message) if before else {"status": 500}

    with serving(behave) as endpoint:
        found, error = given(judge(endpoint, max_requests=15, concurrency=4).verdicts(answers(40)))
        assert endpoint.requests == 15
        assert error is not None
        assert "the cap of 15 requests is reached" in error.message
        assert "start the same command again" in str(error.hint)
        endpoint.behaviour = yes_if_even
        rest, error = given(judge(endpoint, max_requests=40).verdicts(answers(40)[len(found) :]))
    assert error is None
    assert len(found) + len(rest) == 40
    assert set(endpoint.served.values()) == {1}


@pytest.mark.parametrize("counted", [True, False])
def test_the_cap_on_cost_holds_with_and_without_counts_of_tokens(counted: bool, tmp_path: Path) -> None:
    """Without counts a request costs as many tokens as it has bytes, and its reply 100: more than 0.0003 together."""

    def behave(message: str, _before: int) -> dict[str, Any]:
        usage = {"usage": {"prompt_tokens": 20, "completion_tokens": 5}} if counted else {}
        return {"text": "yes", "delay": 0.005, **usage}

    priced = {"price_in": 1.0, "price_out": 2.0, "max_cost": 0.002, "max_tokens": 100}
    report = Heard()
    with serving(behave) as endpoint:
        made = judge(endpoint, report, concurrency=4, **priced)
        found, error = given(made.verdicts(answers(500)))
        made.close()
    assert "the cap on cost is reached" in str(error)
    assert "raise the cap" in str(error)
    per_request = (20 + 2 * 5) / 1e6 if counted else 0.0003
    assert endpoint.requests * per_request <= 0.002
    assert (endpoint.requests > 40) == counted
    ahead = list((tmp_path / "cache" / "judge-replies").iterdir())  # of the request that found no room
    assert len(found) + len(ahead) == endpoint.requests
    assert f"{endpoint.requests} requests" in report.lines[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "https://me:secret@host/v1"}, "must not have a user name"),
        ({"url": "https://host/v1?key=1"}, "must not have a user name, a query"),
        ({"url": "https://host:99999/v1"}, "has a port that is none"),
        ({"url": "ftp://host/v1"}, "must be an http or https url"),
        ({"max_cost": 1.0}, "needs price_in and price_out"),
        ({"key_env": "sk-123"}, "pattern"),
        ({"positive": "("}, "not a regular expression"),
    ],
)
def test_options_that_cannot_be_meant_are_rejected(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_options(CARD, {"url": "https://host/v1", "model": "m", **options})


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\r\nX-Other: 1")
    with serving(yes_if_even) as endpoint, pytest.raises(UsageError) as refused:
        judge(endpoint)
    assert "sk-secret" not in str(refused.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(made.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    class Quiet(HTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    with Quiet(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/v1"
        _, error = given(judge(Endpoint(url, yes_if_even)).verdicts(answers(1)))
        server.shutdown()
    assert isinstance(error, ModelError)
    assert "certificate cannot be verified" in error.message


def test_what_is_kept_between_commands_has_no_key(tmp_path: Path) -> None:
    """A server that writes the key back; the replies that arrived ahead of a failure are files."""
    behave = failing(3, {"status": 500}, lambda *_: {"text": f"yes, {KEY}"})
    with serving(behave) as endpoint:
        found, _ = given(judge(endpoint, retries=0, concurrency=4).verdicts(answers(9)))
    kept = list((tmp_path / "cache").rglob("*.json"))
    assert kept
    assert all(KEY not in path.read_text() for path in kept)
    assert json.loads(kept[0].read_text())["text"] == "yes, [key]"
    assert [verdict.raw for verdict in found] == ["yes, [key]"] * 3
