"""``RUN|MODEL`` on a command line: a model, or a run folder, which stands for its trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.files import local_path
from alignzoo.contract.result import RESULT_FILE
from alignzoo.errors import ModelError
from alignzoo.lazy import torch
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import PLAN_FILE
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.started import plain_values, plan_as_started
from alignzoo.plugin.registry import resume_words
from alignzoo.report import Reporter
from alignzoo.session.session import Session

if TYPE_CHECKING:
    from accelerate import Accelerator

BASE = "base"
"""``--against base``: the model that a run started from."""


@dataclass(frozen=True)
class Subject:
    """A model that a command was given.

    Attributes:
        name: as typed.
        model: what ``--model`` takes.
        run: the run folder, if it is one.
        base: the model that the run started from.
    """

    name: str
    model: str
    run: Path | None = None
    base: str | None = None

    @property
    def label(self) -> str:
        """A short name for tables and file names."""
        return self.run.name if self.run is not None else self.model.rstrip("/").rpartition("/")[2]


def subject_of(name: str) -> Subject:
    """A model or run by what was typed.

    Raises:
        ModelError: a run folder without a trained model.
    """
    folder = local_path(name)
    if not (folder / PLAN_FILE).is_file():
        return Subject(name, name)
    if not (folder / "model").is_dir() and (folder / RESULT_FILE).is_file():
        raise ModelError(
            f"{name} is the folder of a run that did not keep its model",
            hint="run it again without --no-save-model",
        )
    if not (folder / "model").is_dir():
        raise ModelError(
            f"{name} is the folder of a run that has not saved its model yet",
            hint=f"finish it first: {resume_words(folder, trusting=False)}",
        )
    base = plain_values(plan_as_started(folder)).get("model")
    return Subject(name, str(folder / "model"), folder, str(base) if base else None)


def against(subject: Subject, name: str) -> Subject:
    """The model to compare with: ``base`` stands for the one that the subject's run started from.

    Raises:
        ModelError: ``base``, but the subject is no run.
    """
    if name != BASE or local_path(name).exists():
        return subject_of(name)
    if subject.base is None:
        raise ModelError(
            f"--against {BASE} is the model that a run started from, but {subject.name} is not the folder of a run",
            hint="name the model: --against MODEL",
        )
    return subject_of(subject.base)


def model_plan(model: str, values: Mapping[str, Any] | None = None) -> Plan:
    """The plan of a command that needs a model and no data.

    Args:
        values: more settings and methods by flag, such as ``{"precision": "bf16", "judge": ["refusal"]}``.

    Raises:
        AlignzooError: as :func:`~alignzoo.plan.resolve.resolve` finds.
    """
    return require(resolve([Layer("flag", {**(values or {}), "model": model})], trains=False))


def model_session(
    model: str, accelerator: Accelerator, report: Reporter, values: Mapping[str, Any] | None = None
) -> Session:
    """A session without data: tokenizer and policy only."""
    return Session(model_plan(model, values), accelerator, report, uses=None)


def inference_policy(session: Session) -> Any:
    """The session's policy for reading only: with ``--precision bf16`` its weights are bf16, which halves their memory.
    (In training weights stay fp32; a quantised base has the dtype that its layers need.)"""
    settings = session.settings
    if settings.precision == "bf16" and settings.quantize == "none":
        session.policy.to(torch.bfloat16)
    return session.policy
