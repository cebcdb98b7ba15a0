"""``evaluation.json``: what an evaluation found, and what that depends on. docs/evaluation.md has its schema."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.base.files import write_json
from alignzoo.base.stored import read_as, sealed
from alignzoo.errors import DamagedError
from alignzoo.evaluate.tasks.task_results import TaskResults
from alignzoo.evaluate.tasks.tax import AlignmentTax
from alignzoo.evaluate.verdicts.statistics import Estimate, shown

EVALUATION_FILE = "evaluation.json"
VERSION = 1


@dataclass(frozen=True)
class ModelFacts:
    """The evaluated model.

    Attributes:
        name: as it was given.
        identity: a hash of its weights, config and tokenizer.
        precision, quantize: as the settings of a run.
        prompting: how prompts are written, in a sentence.
        system: the system prompt.
        backend: what generates.
    """

    name: str
    identity: str
    precision: str
    quantize: str
    prompting: str
    system: str | None = None
    backend: str = "native"


@dataclass(frozen=True)
class SuiteFacts:
    """What was generated on a suite.

    Attributes:
        name: ``SUITE[+JAILBREAK]``.
        measures: ``attack_success`` or ``over_refusal``.
        digest: a hash of the prompts as they were sent; figures on other prompts are not comparable.
        origin: where the prompts were found.
        prompts: how many.
        whole: how many the whole suite has, if its publisher says so.
        cut: responses cut at ``max_new_tokens``.
        empty: responses without any text.
        tokens: mean number of new tokens.
        notes: what a reader must know of the prompts.
    """

    name: str
    suite: str
    jailbreak: str | None
    title: str
    measures: str
    digest: str
    origin: str
    prompts: int
    whole: int | None
    decoding: dict[str, Any]
    cut: int
    empty: int
    tokens: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class JudgeFacts:
    """A judge.

    Attributes:
        name: in the figures.
        judge: ``distribution:name``.
        measures: ``refusal`` or ``harm``.
        identity: of its model or endpoint; empty for a rule.
        limits: what to know before trusting it.
    """

    name: str
    judge: str
    measures: str
    options: dict[str, Any]
    identity: str
    limits: str


@dataclass(frozen=True)
class Rate:
    """A share of responses with its Wilson 95 % interval."""

    count: int
    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return shown(self.value, self.low, self.high)


@dataclass(frozen=True)
class Figure:
    """A suite's rate under one judge.

    Attributes:
        suite: ``SUITE[+JAILBREAK]``.
        measures: ``attack_success`` or ``over_refusal``.
        rate: unparsed verdicts count as the bad outcome.
        unparsed: responses whose verdict could not be parsed.
        least: the rate if all unparsed ones were the good outcome.
        score: the mean of the judge's scores over the responses that have one.
        by_category: the rate in each category of the suite.
    """

    suite: str
    judge: str
    measures: str
    rate: Rate
    unparsed: int
    least: float
    score: float | None = None
    by_category: dict[str, Rate] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """Cohen's κ of two judges on a suite's responses with its bootstrap interval; None if it is not defined.

    Attributes:
        agree: the share of responses on which they say the same.
        n: responses that both gave a verdict on.
    """

    suite: str
    first: str
    second: str
    n: int
    agree: float | None
    kappa: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A rate of this model minus the other's on the same prompts, with Newcombe's paired 95 % interval.

    Attributes:
        only_here, only_there: prompts with the bad outcome for one of the models only.
        p_value: of McNemar's exact test.
    """

    suite: str
    judge: str
    here: float
    there: float
    value: float
    low: float
    high: float
    n: int
    only_here: int
    only_there: int
    p_value: float


@dataclass(frozen=True)
class Against:
    """The comparison with another model.

    Attributes:
        folder: its evaluation, relative to this one's folder.
        tax: the alignment tax: the tasks of both.
    """

    model: ModelFacts
    folder: str
    differences: tuple[Difference, ...] = ()
    tax: AlignmentTax | None = None


@dataclass(frozen=True)
class Evaluation:
    """The content of ``evaluation.json``.

    Attributes:
        tasks: what the lm-eval harness found.
        against: the comparison with another model.
        alignzoo: the version that wrote it.
    """

    model: ModelFacts
    suites: tuple[SuiteFacts, ...] = ()
    judges: tuple[JudgeFacts, ...] = ()
    figures: tuple[Figure, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    tasks: TaskResults | None = None
    against: Against | None = None
    alignzoo: str = ""
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """JSON-able, in the layout of the file."""
        content = asdict(self)
        first = {name: content.pop(name) for name in ("version", "alignzoo")}
        return {**first, **content}

    def figure(self, suite: str, judge: str) -> Figure:
        """The figure of a suite under a judge.

        Raises:
            LookupError: there is none.
        """
        for figure in self.figures:
            if (figure.suite, figure.judge) == (suite, judge):
                return figure
        raise LookupError(f"no figure of {suite} under {judge}")


def as_rate(count: int, estimate: Estimate) -> Rate:
    """A share with its interval."""
    return Rate(count, estimate.n, estimate.value, estimate.low, estimate.high)


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """Write ``evaluation.json``, sealed; returns its path."""
    path = folder / EVALUATION_FILE
    write_json(path, sealed(evaluation.to_json()))
    return path


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation in a folder.

    Raises:
        DamagedError: there is none, its content is not what was written, or another version wrote it.
    """
    path = folder / EVALUATION_FILE if folder.is_dir() else folder
    found = read_as(path, Evaluation)
    if found.version != VERSION:
        raise DamagedError(path, f"it has version {found.version}, expected {VERSION}", hint="evaluate the model again")
    return found
