"""Files of responses and verdicts: what is written stays, what is torn is dropped, what is another's is refused."""

from pathlib import Path

import pytest

from alignzoo.contract.judge import Answered
from alignzoo.errors import DamagedError, UsageError
from alignzoo.evaluate.journal import Journal, different
from alignzoo.evaluate.responses import Generated, read_responses, responses_journal, responses_of

ABOUT = {"model": "a", "decoding": {"temperature": 0.0, "until": ()}}


def answer(name: str, response: str = "No.") -> Generated:
    message = {"role": "user", "content": f"do {name}"}
    return Generated(Answered(name, f"do {name}", (message,), response, "cat", facts={"row": 3}), 2, True)


def test_responses_come_back_as_they_were_written(tmp_path: Path) -> None:
    journal = responses_journal(tmp_path, "s", ABOUT)
    assert journal.begin() == []
    written = [answer("a"), answer("b", "two\nlines   \U0001f600")]
    with journal.appending() as file:
        for generated in written:
            file.write(generated.line())
    assert read_responses(journal.path) == written
    assert responses_of(tmp_path, "s") == [generated.answered for generated in written]


def test_a_torn_last_line_is_dropped_and_written_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jsonl", ABOUT)
    journal.begin()
    with journal.appending() as file:
        file.write({"id": "a"})
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"id": "b", "resp')
    assert journal.begin() == [{"id": "a"}]
    assert journal.path.read_bytes() == whole


def test_lines_of_something_else_are_refused_with_what_differs(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jsonl", ABOUT)
    journal.begin()
    other = Journal(journal.path, {"model": "b", "decoding": {"temperature": 0.7, "until": ()}})
    other.begin()  # nothing was written yet, so nothing is lost
    with other.appending() as file:
        file.write({"id": "a"})
    with pytest.raises(UsageError, match=r"model b, not a; decoding.temperature 0.7, not 0.0.*\n.*--overwrite"):
        journal.begin()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jsonl", ABOUT)
    journal.begin()
    journal.path.write_text('{"id": "a"}\n{"id"\n')
    with pytest.raises(DamagedError, match="line 2"):
        journal.begin()
    journal.path.write_text('{"id": "a"}\n')
    with pytest.raises(DamagedError, match="response 'a'"):
        read_responses(journal.path)


def test_no_write_goes_through_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    (tmp_path / "out").mkdir()
    journal = Journal(tmp_path / "out" / "x.jsonl", ABOUT)
    journal.path.symlink_to(elsewhere)
    with pytest.raises(Exception, match="is a link"):
        journal.begin()


def test_differences_are_flat() -> None:
    assert different({"a": 1, "b": {"c": "x"}}, {"a": 1, "b": {"c": None}}) == ["b.c x, not none"]


def test_an_unknown_suite_is_answered_with_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "responses").mkdir()
    (tmp_path / "responses" / "xstest.jsonl").write_text("")
    with pytest.raises(UsageError, match="did you mean xstest"):
        responses_of(tmp_path, "xtest")
