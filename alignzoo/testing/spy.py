"""Which fields of a ``PairBatch`` or a ``ResponseBatch`` a method reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alignzoo.contract import pairs as pairs_module
from alignzoo.contract import responses as responses_module
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.responses import KL, ResponseBatch
from alignzoo.testing.outcomes import Violation
from alignzoo.testing.sample import FIELD_NEEDS, SAME, lacking
from alignzoo.testing.subject import Configuration, Subject

_FIELDS = frozenset(PairBatch.__dataclass_fields__) | frozenset(ResponseBatch.__dataclass_fields__)
_PLUMBING = ("dataclasses", "copy", pairs_module.__name__, responses_module.__name__)


class Reads:
    """The names of the fields read so far, and whether a batch was swapped; nothing is counted while ``paused``."""

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
    """Inside, every field that is read of any batch is noted.

    All batches and not one: a method may join, cut or swap what it was given, and read the result. What copies whole
    batches (``swap``, ``rows``, ``dataclasses.replace``, ...) touches all fields and is not counted; to ask for the KL
    responses is to read ``roles``.
    """
    seen = Reads()

    def spying(self: Any, name: str) -> Any:
        if name == "swap":
            seen.note_swap()
        if name in _FIELDS:
            caller = sys._getframe(1)
            if caller.f_globals.get("__name__") not in _PLUMBING or caller.f_code.co_name == "log_ratios":
                seen.note(name)
        value = object.__getattribute__(self, name)
        return _noting_kl(value, seen) if name == "of_role" else value

    classes: tuple[Any, ...] = (PairBatch, ResponseBatch)
    for batch in classes:
        batch.__getattribute__ = spying
    try:
        yield seen
    finally:
        for batch in classes:
            del batch.__getattribute__


def _noting_kl(of_role: Callable[[int], ResponseBatch], seen: Reads) -> Callable[[int], ResponseBatch]:
    def of(role: int) -> ResponseBatch:
        if role == KL:
            seen.note("roles")
        return of_role(role)

    return of


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
