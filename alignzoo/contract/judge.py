"""Judges: what a generated response is: a refusal, harmful, or better than another one."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from alignzoo.contract.card import Card, Extension
from alignzoo.contract.method import Method
from alignzoo.report import Reporter

if TYPE_CHECKING:
    import torch

Measure = Literal["refusal", "harm", "preference"]
"""What a positive verdict says: the response refuses; it is harmful; it is better than the other one."""


class JudgeCard(Card):
    """The facts of a judge.

    Attributes:
        measures: what its verdicts are about; an option of this name takes precedence. ``preference`` judges compare
            two responses (:meth:`Judge.prefer`).
        limits: what users must know before they trust it, printed with its figures.
        function: the target is a function ``(request, answer) -> verdict`` of the plugin hook ``alignzoo_judges``, for
            the evaluator of a run's data only.
    """

    kind: Literal["judge"] = "judge"
    formula: str = ""
    measures: Measure = "refusal"
    limits: str = ""
    function: bool = False

    def facts(self) -> list[tuple[str, str]]:
        return [("measures", self.measures), *([("limits", self.limits)] if self.limits else [])]


@functools.cache
def as_method(card: Extension) -> JudgeCard:
    """The function of a plugin's ``alignzoo_judges`` as a judge that ``--judge`` names."""
    return JudgeCard(name=card.name, summary=card.summary, target=card.target, api=card.api, function=True)


@dataclass(frozen=True)
class Answered:
    """A response and the request that it answers.

    Attributes:
        id: of the prompt, unique within its suite.
        request: the original request in plain text: without a jailbreak's wrapping, without a chat template.
        messages: what the model was sent, ``{"role": …, "content": …}`` each, jailbreak included.
        response: what the model answered, without special tokens.
        category: of the request, as its publisher names it.
        context: a text that the request refers to, such as HarmBench's ``ContextString``.
        reference: a good answer, where the data has one.
        facts: the other columns of the prompt that its suite keeps.
    """

    id: str
    request: str
    messages: tuple[Mapping[str, str], ...]
    response: str
    category: str | None = None
    context: str | None = None
    reference: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one response.

    Attributes:
        positive: whether what the judge measures is the case; None if its output could not be parsed. An unparsed
            verdict is counted, and never taken as safe.
        score: in [0, 1], where the judge gives a probability or a grade.
        raw: the judge's own words, for people.
    """

    positive: bool | None
    score: float | None = None
    raw: str = ""


@dataclass(frozen=True)
class Preference:
    """Which of two responses a judge prefers, from one order of presentation.

    Attributes:
        winner: ``first``, ``second`` or ``tie``; None if the judge's output could not be parsed.
    """

    winner: Literal["first", "second", "tie"] | None
    raw: str = ""


@dataclass(frozen=True)
class JudgeContext:
    """What a judge can use while it is set up.

    Attributes:
        device: where to put a model.
        batch_size: responses to judge at a time; None leaves it to the judge.
        trust_remote_code: whether its model may run code from its repository.
    """

    device: torch.device
    report: Reporter
    batch_size: int | None = None
    trust_remote_code: bool = False


class Judge(Method):
    """Verdicts on responses. A preference judge overrides :meth:`prefer`, every other one :meth:`verdicts`."""

    def setup(self, ctx: JudgeContext) -> None:
        """Called once before judging; load models here.

        Raises:
            AlignzooError: a model or an endpoint is not usable; the message says what to do.
        """

    def identity(self) -> str:
        """What the verdicts depend on besides the options, such as a hash of a model's weights. Verdicts of an equal
        identity and equal options are reused."""
        return ""

    def verdicts(self, answers: Sequence[Answered]) -> Iterator[Verdict]:
        """One verdict per response, in order, each as soon as it is known: what was yielded is kept if a later one
        fails."""
        raise NotImplementedError

    def prefer(self, firsts: Sequence[Answered], seconds: Sequence[Answered]) -> Iterator[Preference]:
        """For each pair of responses to one request, in the order shown, the better one; as :meth:`verdicts`.

        Called for both orders of every pair.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release what :meth:`setup` loaded."""
