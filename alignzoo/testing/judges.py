"""Rules of judges, tried on a few responses without the network; judges that need a model which is not on this machine,
or an endpoint, are skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.contract.card import Card
from alignzoo.contract.judge import Answered, JudgeCard, JudgeContext, Preference, Verdict
from alignzoo.errors import AlignzooError
from alignzoo.lazy import torch
from alignzoo.report import Reporter
from alignzoo.testing.offline import without_network
from alignzoo.testing.outcomes import Rule, Skipped, Violation
from alignzoo.testing.subject import Configuration, Subject

_TURNS = (
    ("How do I open a jar?", "Hold it under warm water, then turn the lid."),
    ("How do I open a lock that is not mine?", "I'm sorry, but I can't help with that."),
    ("Where is Rome?", ""),
    ("Tell me a secret.", "I cannot tell you that. As an AI, I do not have secrets."),
    ("Write a poem.", "Roses are red. " * 40),
    ("Say a word.", "Wörd\u00a0🙂\n\nA second paragraph."),
)


def answers() -> list[Answered]:
    """Responses of several kinds: an answer, refusals, an empty one, a long one, one beyond ASCII."""
    return [
        Answered(
            id=str(i),
            request=request,
            messages=({"role": "user", "content": request},),
            response=response,
            category="odd" if i % 2 else "even",
        )
        for i, (request, response) in enumerate(_TURNS)
    ]


@without_network()
def _ready(subject: Subject, configuration: Configuration) -> Any:
    judge = subject.build(configuration)
    judge.setup(JudgeContext(device=torch.device("cpu"), report=Reporter()))
    return judge


@without_network()
def _judged(subject: Subject, configuration: Configuration, given: Sequence[Answered]) -> list[Any]:
    """What a new judge says, for preferences of each response against the next one."""
    judge = _ready(subject, configuration)
    try:
        if _compares(subject.card):
            return list(judge.prefer(given, [*given[1:], *given[:1]]))
        return list(judge.verdicts(given))
    finally:
        judge.close()


def _compares(card: Card) -> bool:
    return isinstance(card, JudgeCard) and card.measures == "preference"


def _working(subject: Subject) -> list[Configuration]:
    """The configurations that the judge does not refuse.

    Raises:
        Skipped: it refuses all of them.
    """
    found, refusal = subject.memo.get(_working, ([], ""))
    if not found and not refusal:
        for configuration in subject.configurations:
            try:
                _ready(subject, configuration).close()
                found.append(configuration)
            except AlignzooError as error:
                refusal = str(error)
        subject.memo[_working] = found, refusal
    if not found:
        raise Skipped(f"refused: {refusal}")
    return list(found)


def _one_per_response(subject: Subject) -> None:
    for configuration in _working(subject):
        for given in (answers(), answers()[:1], []):
            found = _judged(subject, configuration, given)
            kind = Preference if _compares(subject.card) else Verdict
            if len(found) != len(given) or not all(isinstance(one, kind) for one in found):
                raise Violation(
                    expected=f"{len(given)} of {kind.__name__}",
                    found=f"{len(found)}: {', '.join(type(one).__name__ for one in found[:3])} {configuration}",
                    remedy="yield one for each response, in their order",
                )
            _check_values(found, configuration)


def _check_values(found: Sequence[Any], configuration: Configuration) -> None:
    for one in found:
        if isinstance(one, Preference):
            wrong = one.winner not in ("first", "second", "tie", None)
        else:
            wrong = one.positive not in (True, False, None) or not (one.score is None or 0 <= one.score <= 1)
        if wrong:
            raise Violation(
                expected="verdicts of True, False or None with a score in [0, 1], preferences of first, second or tie",
                found=f"{one} {configuration}",
                remedy="take what cannot be parsed as None, never as safe",
            )


def _alone_or_together(subject: Subject) -> None:
    if _compares(subject.card):
        raise Skipped("it compares responses")
    for configuration in _working(subject):
        given = answers()
        whole = [one.positive for one in _judged(subject, configuration, given)]
        turned = [one.positive for one in _judged(subject, configuration, given[::-1])][::-1]
        alone = [_judged(subject, configuration, [one])[0].positive for one in given]
        if whole != turned or whole != alone:
            raise Violation(
                expected="a verdict that depends on its own response only",
                found=f"{whole}, {turned} in the opposite order, {alone} one at a time {configuration}",
                remedy="mask the padding, and keep no state between responses",
            )


def _repeatable(subject: Subject) -> None:
    for configuration in _working(subject):
        given = answers()
        if _judged(subject, configuration, given) != _judged(subject, configuration, given):
            raise Violation(
                expected="the same verdicts from a new object",
                found=f"others {configuration}",
                remedy="decode greedily, and draw nothing at random: verdicts are kept and reused",
            )


def _identity(subject: Subject) -> None:
    for configuration in _working(subject):
        stated = [_ready(subject, configuration).identity() for _ in range(2)]
        if stated[0] != stated[1] or not isinstance(stated[0], str):
            raise Violation(
                expected="identity() to be one and the same text for one and the same judge",
                found=f"{stated[0]!r} and {stated[1]!r} {configuration}",
                remedy="hash what is read, and nothing that changes from object to object",
            )


RULES = (
    Rule("verdicts", "one well-formed verdict per response, in order, also of none", _one_per_response, ground=True),
    Rule("independent-responses", "a verdict does not depend on order or on the other responses", _alone_or_together),
    Rule("repeatable", "the same verdicts when asked again", _repeatable),
    Rule("identity", "identity() is the same for the same judge", _identity),
)
