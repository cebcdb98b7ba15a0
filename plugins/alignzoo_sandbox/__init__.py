"""The sandbox: a small invented world with its own chat model, preference data and exact judge.

It is what a run uses without a model or data of its own, and a test bed in which methods can be told apart by what
they do to generated answers. Importing this package imports no torch.
"""

from pathlib import Path

from alignzoo.plugin import DataExtension, EvaluatorExtension, Extension, hookimpl
from alignzoo_sandbox.evaluate import evaluate, generate_answers, table
from alignzoo_sandbox.generate import (
    ATTACK_SPLITS,
    EVALUATION_PROMPTS,
    EVALUATION_SPLITS,
    HARMLESS_SPLITS,
    SPLITS,
    TRAIN_PAIRS,
    VALIDATION_PAIRS,
    Prompt,
    preference_rows,
    prompts,
)
from alignzoo_sandbox.judge import Verdict, judge

MODEL_PATH = Path(__file__).parent / "assets" / "model"

__all__ = [
    "ATTACK_SPLITS",
    "EVALUATION_PROMPTS",
    "EVALUATION_SPLITS",
    "HARMLESS_SPLITS",
    "MODEL_PATH",
    "SPLITS",
    "TRAIN_PAIRS",
    "VALIDATION_PAIRS",
    "Prompt",
    "Verdict",
    "evaluate",
    "generate_answers",
    "judge",
    "preference_rows",
    "prompts",
    "table",
]


@hookimpl
def alignzoo_models() -> list[Extension]:
    """The sandbox's chat model."""
    return [
        Extension(
            kind="model",
            name="sandbox",
            target=f"{__name__}.extensions:model",
            summary="a Llama of 1M parameters that answers every request",
        )
    ]


@hookimpl
def alignzoo_data() -> list[Extension]:
    """The sandbox's preference pairs."""
    return [
        DataExtension(
            name="sandbox",
            target=f"{__name__}.extensions:Pairs",
            summary="refuse harmful requests, answer harmless ones",
            held_out=True,
            clean=True,
            evaluator="alignzoo:sandbox",
        )
    ]


@hookimpl
def alignzoo_evaluators() -> list[Extension]:
    """Attack success and over-refusal on generated answers."""
    return [
        EvaluatorExtension(
            name="sandbox",
            target=f"{__name__}.extensions:Answers",
            summary="attack success and over-refusal, from answers to the sandbox's own requests",
            judge="alignzoo:sandbox",
        )
    ]


@hookimpl
def alignzoo_judges() -> list[Extension]:
    """The judge of the sandbox's grammar."""
    return [
        Extension(
            kind="judge",
            name="sandbox",
            target=f"{__name__}.judge:judge",
            summary="exact: the sandbox's own grammar says what an answer is",
        )
    ]


@hookimpl
def alignzoo_recipes() -> list[Path]:
    """The run without a model or data of its own."""
    return [Path(__file__).with_name("sandbox.yaml")]
