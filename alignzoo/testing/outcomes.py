"""The contract kit's vocabulary: a rule, its check on one method, and the outcome."""

from __future__ import annotations

import traceback
import unittest
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignzoo.contract.card import Card
from alignzoo.errors import contained
from alignzoo.plugin.faults import describe_error

if TYPE_CHECKING:
    from alignzoo.testing.subject import Subject

Status = Literal["passed", "failed", "expected", "unexpected", "skipped"]
"""``expected``: broken, as the card says. ``unexpected``: kept, although the card says that it is broken."""


class ContractError(AssertionError):
    """A method breaks a rule: which one, what was expected, what came out, and what to do."""


class Skipped(unittest.SkipTest):
    """A check does not apply to this method after all (pytest and unittest both count it as skipped)."""


class Violation(Exception):
    """Raised inside a rule; the check puts the method and the rule in front.

    Args:
        expected: what the rule requires.
        found: the actual result.
        remedy: what the author can do.
    """

    def __init__(self, *, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"expected {expected}; found {found}\n  {remedy}")


@dataclass(frozen=True)
class Rule:
    """One rule of the contract.

    Attributes:
        name: what an author writes into ``expected_failures``.
        summary: one line for people.
        run: raises where the subject breaks the rule.
        applies: whether a card has this rule at all.
        ground: the rules after it are skipped where it is broken: they would only repeat what it says.
    """

    name: str
    summary: str
    run: Callable[[Subject], None] = field(repr=False)
    applies: Callable[[Card], bool] = field(default=lambda card: True, repr=False)
    ground: bool = False


@dataclass(frozen=True, repr=False)
class Check:
    """A rule on one method; call it.

    Attributes:
        expected: why the card expects it to fail; None where it must pass.
    """

    card: Card
    rule: str
    summary: str
    expected: str | None
    _run: Callable[[], None] = field(compare=False)
    ground: bool = False

    def __repr__(self) -> str:
        return f"<{self.rule} of {self.card.kind} {self.card.name!r}>"

    def __call__(self) -> None:
        """Run the check.

        Raises:
            ContractError: the method breaks the rule, or failed on its own while it was checked.
            Skipped: the rule does not apply after all.
        """
        __tracebackhide__ = True  # pytest then shows what the method did, and not how the kit asked
        broken = f"{self.card.kind} {self.card.name!r} breaks {self.rule}: "
        try:
            with contained():
                self._run()
        except Skipped:
            raise
        except Violation as violation:
            raise ContractError(broken + str(violation)) from violation.__cause__
        except Exception as error:  # third-party code can raise anything
            raise ContractError(f"{broken}{describe_error(error)}\n  {_place(error)}") from error

    def skipped(self, broken: str) -> Outcome:
        """The outcome where a rule that this one stands on is broken."""
        return Outcome(self.rule, self.summary, "skipped", f"{broken} is broken", 0.0)

    def outcome(self, seconds: Callable[[], float]) -> Outcome:
        """Run the check and return its outcome; ``seconds`` is a clock."""
        start = seconds()
        status: Status
        try:
            self()
            status, detail = "passed", ""
            if self.expected is not None:
                status, detail = "unexpected", f"{self.rule} passes: remove it from the card's expected_failures"
        except Skipped as reason:
            status, detail = "skipped", str(reason)
        except ContractError as error:
            status, detail = "failed", str(error)
            if self.expected is not None:
                status, detail = "expected", self.expected
        return Outcome(self.rule, self.summary, status, detail, seconds() - start)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check; ``detail`` is the error, the reason, or empty; ``seconds`` of wall clock."""

    rule: str
    summary: str
    status: Status
    detail: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """The outcomes of all checks of one method."""

    kind: str
    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """No rule is broken unless the card says so, and none is kept that the card says is broken."""
        return not any(outcome.status in ("failed", "unexpected") for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"kind": self.kind, "name": self.name, "ok": self.ok, "outcomes": [asdict(o) for o in self.outcomes]}


def _place(error: BaseException) -> str:
    """Where the error came from, in the innermost code that is not a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"raised in {own[-1].name}, {Path(own[-1].filename).name}:{own[-1].lineno}"
