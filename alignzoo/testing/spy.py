"""Which fields of a ``PairBatch`` a method reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alignzoo import pairs as pairs_module
from alignzoo.contract.pairs import PairBatch
from alignzoo.testing.outcomes import Violation
from alignzoo.testing.sample import FIELD_NEEDS, SAME, lacking
from alignzoo.testing.subject import Configuration, Subject

_FIELDS = frozenset(PairBatch.__dataclass_fields__)
_PLUMBING = ("dataclasses", "copy", pairs_module.__name__)


class Reads:
    """The names of the fields read so far, and whether pairs were swapped; nothing is counted while ``paused``."""

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self.swapped = False
        self._paused = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def note(self, name: str) -> None:
        if not self._paused:
            self.fields.add(name)

    def note_swap(self) -> None:
        self.swapped = self.swapped or not self._paused


@contextmanager
def reads() -> Iterator[Reads]:
    """Inside, every field that is read of any ``PairBatch`` is noted.

    All batches and not one: a method may join, cut or swap what it was given, and read the result. What copies whole
    batches (``swap``, ``rows``, ``dataclasses.replace``, ...) touches all fields and is not counted.
    """
    seen = Reads()

    def spying(self: PairBatch, name: str) -> Any:
        if name == "swap":
            seen.note_swap()
        if name in _FIELDS:
            caller = sys._getframe(1)
            if caller.f_globals.get("__name__") not in _PLUMBING or caller.f_code.co_name == "log_ratios":
                seen.note(name)
        return object.__getattribute__(self, name)

    PairBatch.__getattribute__ = spying  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        del PairBatch.__getattribute__


def check_declared(subject: Subject, read: list[tuple[Configuration, set[str]]]) -> None:
    """Hold the fields read in each configuration to what is declared.

    Raises:
        Violation: a field of an undeclared need was read, or no field of a declared one ever was.
    """
    for configuration, fields in read:
        declared = subject.needs(configuration)
        for field in sorted(fields):
            missing = lacking(field, declared)
            if missing:
                names = ", ".join(repr(need) for need in sorted(missing))
                raise Violation(
                    expected="only fields that the card declares to be read",
                    found=f"{field} read {configuration}, and needs do not name {names}",
                    remedy=f"add {names} to the card's needs: a run without it leaves the field None",
                )
    for need in sorted(frozenset().union(*(subject.needs(c) for c, _ in read))):
        its_fields = {field for field, needs in FIELD_NEEDS.items() if SAME.get(need, need) in needs}
        touched = frozenset().union(*(fields for c, fields in read if need in subject.needs(c)))
        if its_fields and not its_fields & touched:
            raise Violation(
                expected=f"the declared need {need!r} to be used",
                found="that none of its fields is ever read",
                remedy=f"take {need!r} out of the needs: every run would pay for it",
            )
