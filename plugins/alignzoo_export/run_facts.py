"""What a run folder says about a run, read for its model card."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo.base.files import local_path
from alignzoo.base.stored import read_object
from alignzoo.contract.result import RunResult
from alignzoo.errors import AlignzooError
from alignzoo.evaluate.results import EVALUATION_FILE, Evaluation, read_evaluation
from alignzoo.plan.plan import Method, Plan
from alignzoo.plan.planfile import DEFAULT, DERIVED, PRESET, read_plan
from alignzoo.plan.started import plain_values, plan_as_started, stated_values
from alignzoo.report import Progress, Reporter

EVALUATION = "evaluation"
"""Inside a run folder: where ``alignzoo eval`` writes to."""
_NOT_FOR_OTHERS = ("out", "trust-remote-code")


@dataclass(frozen=True)
class RunFacts:
    """A run.

    Attributes:
        content: of ``plan.yaml``.
        plan: None if it cannot be resolved here, as without a plugin that it uses.
        data: of ``data.json``, by part.
        evaluation: what ``alignzoo eval`` wrote into the run folder; None if it is not there.
    """

    folder: Path
    content: dict[str, Any]
    plan: Plan | None
    data: dict[str, Any]
    environment: dict[str, Any]
    result: RunResult | None
    evaluation: Evaluation | None

    @property
    def values(self) -> dict[str, Any]:
        """Settings and options by the words that set them."""
        return plain_values(self.content)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The run's methods; empty without a plan."""
        return () if self.plan is None else self.plan.all_methods

    @property
    def method_names(self) -> list[str]:
        """The names of the methods that were stated, losses first."""
        words = shlex.split(str(self.content.get("sentence", "")))
        return list(dict.fromkeys(name for flag, name in zip(words[::2], words[1::2], strict=False) if "." not in flag))

    def command(self) -> str:
        """The command line that starts the same run; local files and folders by the last part of their path."""
        words = ["alignzoo", "run", *shlex.split(str(self.content.get("sentence", "")))]
        for word, stated in stated_values(self.content).items():
            if stated["from"] in (DEFAULT, PRESET, *DERIVED) or word in _NOT_FOR_OTHERS or f"--{word}" in words:
                continue
            words += _flag(word, stated["value"])
        return shlex.join(words)


def read_run(folder: Path, report: Reporter, *, trust_remote_code: bool) -> RunFacts:
    """The facts of a finished run.

    Raises:
        AlignzooError: its plan or a result is damaged.
    """
    content = plan_as_started(folder)
    trusted = trust_remote_code and bool(plain_values(content).get("trust-remote-code"))
    plan = None
    try:
        plan = read_plan(folder, trust_remote_code=trusted, command="export")
    except AlignzooError as error:
        report.warn(f"the card leaves out what the methods are: {error.message}")
    return RunFacts(
        folder=folder,
        content=content,
        plan=plan,
        data=_object(folder / "data.json"),
        environment=_object(folder / "env.json"),
        result=RunResult.load(folder),
        evaluation=_evaluation(folder / EVALUATION),
    )


def short_name(value: Any) -> str:
    """A model or data source by name; of a local path only the last part, which says nothing of the machine."""
    name = str(value)
    return local_path(name).name if Path(name).is_absolute() or local_path(name).exists() else name


@dataclass
class Collected(Reporter):
    """Tables and warnings instead of a terminal's output."""

    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.tables.append((title, columns, rows))

    @contextmanager
    def progress(self, total: int, description: str, *, unit: str = "it", done: int = 0) -> Iterator[Progress]:
        yield Progress()


def outcome(run: RunFacts) -> Collected:
    """The tables and warnings at the end of the run, again."""
    from alignzoo.data.shapes import NOUNS
    from alignzoo.evaluate.answers import answers_of
    from alignzoo.runs.outcome import report_outcome

    collected = Collected()
    if run.result is not None:
        answers = answers_of(run.plan) if run.plan is not None else None
        noun = NOUNS.get(run.data.get("train", {}).get("shape", "pairs"), "rows")
        report_outcome(run.result.before, run.result.after, collected, answers, noun=noun)
    return collected


def _evaluation(folder: Path) -> Evaluation | None:
    return read_evaluation(folder) if (folder / EVALUATION_FILE).is_file() else None


def _object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _flag(word: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{word}"] if value else [f"--no-{word}"]
    if value is None or value == []:
        return []
    values = value if isinstance(value, list) else [value]
    return [part for one in values for part in (f"--{word}", short_name(one))]
