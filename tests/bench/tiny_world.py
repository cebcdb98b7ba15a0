"""A world whose runs take a second: a few of the sandbox's pairs, and figures read from the weights."""

from pathlib import Path
from typing import Any

from alignzoo_sandbox import preference_rows

from alignzoo.interfaces import DataSource, EvaluationContext, Evaluator
from alignzoo.plugin import DataExtension, EvaluatorExtension, Extension, hookimpl

HERE = __name__


class Pairs(DataSource):
    """Few pairs."""

    def rows(self, split: str) -> Any:
        return preference_rows(split, 48 if split == "train" else 16)


class Figures(Evaluator):
    """How far the weights have moved, as if it were a rate."""

    def figures(self, run: EvaluationContext) -> dict[str, float]:
        return {"asr/test": _moved(run.model), "broken/test": 0.0}

    def validation_figures(self, run: EvaluationContext) -> dict[str, float]:
        return {"asr/validation": _moved(run.model), "refusal/validation": 0.0}


def _moved(model: Any) -> float:
    return float(sum(weight.detach().double().abs().sum() for weight in model.parameters()) % 1)


@hookimpl
def alignzoo_data() -> list[Extension]:
    return [
        DataExtension(
            name="tiny-world", target=f"{HERE}:Pairs", summary="few pairs", held_out=True, evaluator="tiny-world"
        )
    ]


@hookimpl
def alignzoo_evaluators() -> list[Extension]:
    return [EvaluatorExtension(name="tiny-world", target=f"{HERE}:Figures", summary="moved weights")]


@hookimpl
def alignzoo_recipes() -> list[Path]:
    return [Path(__file__).with_name("tiny-world.yaml")]
