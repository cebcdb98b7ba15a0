"""The sandbox: a small synthetic world with its own chat model, preference data and exact judge.

It is the default model and data of a run, and a test bed that distinguishes methods by their effect on generated
answers. Importing this package does not import torch.
"""

from pathlib import Path

from alignzoo.contract.judge import JudgeCard, Measure
from alignzoo.contract.paper import Verified
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

_JUDGES: dict[Measure, str] = {
    "harm": "Exact: the response complies with the sandbox's request",
    "refusal": "Exact: the response is a refusal of the sandbox's grammar",
}
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
            summary="Llama with 1M parameters that answers every request",
        )
    ]


@hookimpl
def alignzoo_data() -> list[Extension]:
    """The sandbox's preference pairs."""
    return [
        DataExtension(
            name="sandbox",
            target=f"{__name__}.extensions:Pairs",
            summary="Preference pairs: refuse harmful requests, answer harmless ones",
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
            summary="Attack success and over-refusal rates on sandbox requests",
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
            summary="Exact judge based on the sandbox's grammar",
        )
    ]


@hookimpl
def alignzoo_methods() -> list[JudgeCard]:
    """The exact judge of the suites, as one of harm and one of refusals."""
    return [
        JudgeCard(
            name=f"sandbox-{measures}",
            target=f"{__name__}.suite_judge:{measures.capitalize()}",
            summary=summary,
            family="without a model",
            measures=measures,
            verified=(Verified(against="the grammar", test="test_the_sandboxs_judge_says_what_its_grammar_says"),),
            limits="prompts of the sandbox only",
        )
        for measures, summary in _JUDGES.items()
    ]


@hookimpl
def alignzoo_suites() -> list[Path]:
    """The evaluation splits."""
    return sorted((Path(__file__).parent / "suites").glob("*.yaml"))


@hookimpl
def alignzoo_recipes() -> list[Path]:
    """The recipe of a run without --model and --data."""
    return [Path(__file__).with_name("sandbox.yaml")]
