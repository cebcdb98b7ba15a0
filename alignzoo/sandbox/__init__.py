"""The sandbox: a small invented world with its own chat model, preference data and exact judge.

It is what a run uses without a model or data of its own, and a test bed in which methods can be told apart by what
they do to generated answers. Importing this package imports no torch.
"""

from pathlib import Path

from alignzoo.sandbox.evaluate import evaluate, generate_answers, table
from alignzoo.sandbox.generate import (
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
from alignzoo.sandbox.judge import Verdict, judge

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
