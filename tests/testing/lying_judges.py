"""Judges that break their contract, one rule each; importable, because other processes load them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from alignzoo.interfaces import Answered, Judge, Preference, Verdict


class Short(Judge):
    """An honest judge; each liar changes one thing."""

    def verdicts(self, answers: Sequence[Answered]) -> Iterator[Any]:
        for answer in answers:
            yield Verdict(len(answer.response) < 10, raw=answer.response[:5])


class OneTooFew(Short):
    def verdicts(self, answers: Sequence[Answered]) -> Iterator[Any]:
        yield from super().verdicts(answers[1:])


class Words(Short):
    def verdicts(self, answers: Sequence[Answered]) -> Iterator[Any]:
        yield from ("unsafe" for _ in answers)


class Percent(Short):
    def verdicts(self, answers: Sequence[Answered]) -> Iterator[Any]:
        yield from (Verdict(True, score=55.0) for _ in answers)


class ByPlace(Short):
    def verdicts(self, answers: Sequence[Answered]) -> Iterator[Any]:
        yield from (Verdict(place == 0) for place, _ in enumerate(answers))


class Drawn(Short):
    def verdicts(self, answers: Sequence[Answered]) -> Iterator[Any]:
        yield from (Verdict(True, score=random.random()) for _ in answers)


class NewName(Short):
    def identity(self) -> str:
        return str(random.random())


class Longer(Judge):
    """An honest judge of pairs."""

    def prefer(self, firsts: Sequence[Answered], seconds: Sequence[Answered]) -> Iterator[Preference]:
        for first, second in zip(firsts, seconds, strict=True):
            yield Preference("first" if len(first.response) > len(second.response) else "second")


class Neither(Longer):
    def prefer(self, firsts: Sequence[Answered], seconds: Sequence[Answered]) -> Iterator[Preference]:
        yield from (Preference("neither") for _ in firsts)  # type: ignore[arg-type]
