"""World 2: a synthetic world in which what is harmful depends on combinations of words.

Like the sandbox, it has its own chat models, preference data and exact judge, but methods can differ in it. Importing
this package does not import torch.
"""

from pathlib import Path

from alignzoo.plugin import DataExtension, EvaluatorExtension, Extension, hookimpl

MODELS = Path(__file__).parent / "assets"
SHIPPED = 3
"""Worlds whose pretrained model ships with the package."""
WORLDS = 5
"""Worlds whose data has a name."""


def name_of(world: int) -> str:
    """The name of a world's model and data."""
    return f"world2-{world}" if world else "world2"


@hookimpl
def alignzoo_models() -> list[Extension]:
    """The chat models of worlds 0, 1 and 2."""
    return [
        Extension(
            kind="model",
            name=name_of(world),
            target=f"{__name__}.extensions:model_{world}",
            summary=f"Llama with 0.25M parameters that answers every request of world 2 (world seed {world})",
        )
        for world in range(SHIPPED)
    ]


@hookimpl
def alignzoo_data() -> list[Extension]:
    """The preference pairs of each world."""
    return [
        DataExtension(
            name=name_of(world),
            target=f"{__name__}.extensions:Pairs{world or ''}",
            summary=f"Preference pairs of world 2 (world seed {world})",
            held_out=True,
            clean=True,
            evaluator="alignzoo:world2",
        )
        for world in range(WORLDS)
    ]


@hookimpl
def alignzoo_evaluators() -> list[Extension]:
    """Attack success and over-refusal on generated answers."""
    return [
        EvaluatorExtension(
            name="world2",
            target=f"{__name__}.extensions:Answers",
            summary="Attack success and over-refusal rates on requests of world 2",
        )
    ]


@hookimpl
def alignzoo_recipes() -> list[Path]:
    """The recipe of runs in world 2."""
    return [Path(__file__).with_name("world2.yaml")]
