"""A plugin in one file that brings a model, data and an evaluator of its own."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
from alignzoo.interfaces import DataSource, Evaluator, Table
from alignzoo.plugin import DataExtension, EvaluatorExtension, Extension, hookimpl


def place():
    return MODEL


class Towers(DataSource):
    def rows(self, split):
        first, last = (0, 24) if split == "train" else (24, 30)
        for n in range(first, last):
            yield {"prompt": f"How far is tower {n}?", "chosen": f"Far, {n} miles.", "rejected": "No."}


class Size(Evaluator):
    """The size of the weights, which tells those before training from those after it."""

    def figures(self, run):
        assert run.judge is None
        return {"squared": sum(float(w.detach().double().square().sum()) for w in run.model.parameters())}

    def table(self, before, after):
        return Table(("", "before", "after"), [("squared", before["squared"], after["squared"])])


@hookimpl
def alignzoo_models():
    return [Extension(kind="model", name="toy-model", target=f"{__name__}:place", summary="a tiny model")]


@hookimpl
def alignzoo_data():
    return [
        DataExtension(name="towers", target=f"{__name__}:Towers", summary="far", held_out=True, evaluator="size")
    ]


@hookimpl
def alignzoo_evaluators():
    return [EvaluatorExtension(name="size", target=f"{__name__}:Size", summary="size of the weights")]
'''


def world(folder: Path, model: str, *changes: tuple[str, str]) -> Path:
    """The plugin in a file of ``folder``, with ``model`` as what its model's function gives, and changes to its text.

    Raises:
        ValueError: a change's text is not there.
    """
    source = SOURCE.replace("MODEL", model)
    for old, new in changes:
        if old not in source:
            raise ValueError(f"{old!r} is not in the plugin")
        source = source.replace(old, new)
    path = folder / f"world_{len(list(folder.glob('world_*.py')))}_{folder.name.replace('-', '_')}.py"
    path.write_text(source)
    return path
