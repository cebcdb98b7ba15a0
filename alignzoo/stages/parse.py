"""From a recipe's ``stages:`` to stages with resolved plans.

::

    stages:
      - {name: helpfulness, loss: dpo, data.format: pku-saferlhf-helpful}
      - {name: safety, loss: dpo, model: "stage:helpfulness"}
      - {name: merged, merge: {helpfulness: 0.5, safety: 0.5}}
      - {name: answers, generate: {model: "stage:merged", temperature: 1.0}}

A stage trains unless it has ``merge`` or ``generate``. The recipe's other keys, and flags, apply to every stage.
``stage:NAME`` is the model of an earlier stage, or the data that it generated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.contract.values import Values
from alignzoo.distributed.launch import distributed_backend
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import raise_first, resolve
from alignzoo.plan.select import grounded

REFERENCE = "stage:"
"""In front of a stage's name where a model or data is due."""
_MODELS, _DATA = ("model", "guide", "contrast"), ("data", "eval-data")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
Action = Literal["train", "merge", "generate"]
_MODEL_FOLDER, DATA_FILE = "model", "data.jsonl"


class Generation(Values):
    """How a stage generates: one response to each prompt of its data, which becomes the rejected one of a pair."""

    prompts: int | None = Field(None, ge=1, description="maximum number of prompts, drawn at random")
    max_new_tokens: int = Field(256, ge=1, description="maximum tokens of a response")
    temperature: float = Field(1.0, ge=0, description="softmax temperature; 0 takes the most likely token")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the most likely tokens with this total probability")
    batch_size: int = Field(64, ge=1, description="prompts per batch")
    together_with: str | None = Field(None, description="an earlier stage, whose own generated pairs are added")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        folder: where it writes.
        plan: of a stage that trains or generates.
        weights: of a merge, by the model folder of each stage.
        generation: of a stage that generates; its ``together_with`` is a file.
        words: the stage as the recipe has it, for the record.
    """

    name: str
    action: Action
    folder: Path
    words: Mapping[str, Any]
    plan: Plan | None = None
    weights: Mapping[Path, float] | None = None
    generation: Generation | None = None

    @property
    def keeps(self) -> bool:
        """Whether its model or data is there once it has finished."""
        return self.action != "train" or self.plan is None or self.plan.settings.save_model

    def sentence(self) -> str:
        """What it does, in a line."""
        if self.plan is not None and self.action == "train":
            return f"alignzoo run {self.plan.sentence()}".rstrip()
        if self.weights is not None:
            return "merge " + " + ".join(f"{weight:g} · {path.parent.name}" for path, weight in self.weights.items())
        assert self.plan is not None
        return f"generate a response to each prompt of {self.plan.settings.data} with {self.plan.settings.model}"


def staged(layers: Sequence[Layer]) -> bool:
    """Whether a recipe of these layers has stages."""
    return any(layer.stages for layer in layers)


def parse_stages(layers: Sequence[Layer], folder: Path) -> list[Stage]:
    """The stages of layered recipes and flags, with plans; nothing is loaded.

    Args:
        folder: where the run as a whole writes.

    Raises:
        AlignzooError: two recipes have stages, a stage is malformed, or its plan does not resolve.
    """
    owners = [layer for layer in layers if layer.stages]
    if len(owners) > 1:
        raise UsageError(
            f"{owners[0].origin} and {owners[1].origin} both have stages", hint="name only one recipe with stages"
        )
    owner = owners[0]
    parser = _Parser(owner, layers, folder)
    for index, words in enumerate(owner.stages, start=1):
        parser.add(words, f"{owner.origin}, stage {index}")
    return parser.stages


class _Parser:
    """The stages so far."""

    def __init__(self, owner: Layer, layers: Sequence[Layer], folder: Path) -> None:
        self.folder = folder
        self.stages: list[Stage] = []
        strongest = next((i for i, layer in enumerate(layers) if layer.origin == "flag"), len(layers))
        plain = [Layer(layer.origin, {k: v for k, v in layer.values.items() if k != "out"}) for layer in layers]
        self.below, self.above = plain[:strongest], plain[strongest:]
        self.origin = owner.origin

    def add(self, words: Any, where: str) -> None:
        """Parse one more stage."""
        if not isinstance(words, Mapping):
            raise UsageError(f"{where} is {shown(words)}, not a mapping", hint="write `- {name: NAME, loss: …}`")
        rest = dict(words)
        name = rest.pop("name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(f"{where} has no valid name", hint="add `name: NAME` of small letters, digits and dashes")
        if name in self._named():
            raise UsageError(f"{where}: there are two stages {name!r}", hint="rename one of them")
        where = f"{where} ({name})"
        if "merge" in rest and "generate" in rest:
            raise UsageError(f"{where} both merges and generates", hint="make two stages of it")
        make: Callable[[str, dict[str, Any], str], dict[str, Any]] = self._training
        if "merge" in rest:
            make = self._merge
        elif "generate" in rest:
            make = self._generation
        self.stages.append(Stage(name, folder=self.folder / name, words=dict(words), **make(name, rest, where)))

    def _training(self, name: str, rest: dict[str, Any], where: str) -> dict[str, Any]:
        return {"action": "train", "plan": self._plan(name, rest, where)}

    def _merge(self, name: str, rest: dict[str, Any], where: str) -> dict[str, Any]:
        parts, others = rest.pop("merge"), sorted(rest)
        if others:
            raise UsageError(f"{where}: {others[0]} has no effect in a merge", hint="leave it out")
        valid = isinstance(parts, Mapping) and len(parts) > 1
        if not valid or not all(type(weight) in (int, float) for weight in parts.values()):
            raise UsageError(
                f"{where}: merge is {shown(parts)}, not two or more stages with their weights",
                hint="write `merge: {helpfulness: 0.5, safety: 0.5}`",
            )
        return {"action": "merge", "weights": {self._of(part, where, data=False): w for part, w in parts.items()}}

    def _generation(self, name: str, rest: dict[str, Any], where: str) -> dict[str, Any]:
        given = rest.pop("generate") or {}
        if not isinstance(given, Mapping):
            raise UsageError(f"{where}: generate is {shown(given)}, not a mapping", hint="write `generate: {}`")
        given = {str(key).replace("-", "_"): value for key, value in given.items()}
        settings = {key: given.pop(key) for key in ("model", "data") if key in given}
        try:
            generation = Generation.model_validate(given)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"]))
            hint = suggest(key, Generation.model_fields) or f"options: {', '.join(Generation.model_fields)}"
            raise UsageError(f"{where}: generate.{key}: {problem['msg']}", hint=hint) from error
        if generation.together_with is not None:
            path = self._of(generation.together_with.removeprefix(REFERENCE), where, data=True)
            generation = generation.model_copy(update={"together_with": str(path)})
        return {"action": "generate", "plan": self._plan(name, rest | settings, where), "generation": generation}

    def _plan(self, name: str, rest: dict[str, Any], where: str) -> Plan:
        values = flatten(rest, where)
        if "out" in values:
            raise UsageError(f"{where}: a stage has no folder of its own choice", hint="leave out `out`")
        referring = {key: value for key, value in values.items() if str(value).startswith(REFERENCE)}
        plain = {key: value for key, value in values.items() if key not in referring}
        layers = grounded([*self.below, Layer(f"{self.origin} › {name}", plain), *self.above])
        found: dict[str, Any] = {"out": str(self.folder / name)}
        for key, value in referring.items():
            if key not in (*_MODELS, *_DATA):
                raise UsageError(f"{where}: {key} cannot be {value}", hint=f"{', '.join((*_MODELS, *_DATA))} can")
            found[key] = str(self._of(str(value).removeprefix(REFERENCE), where, data=key in _DATA))
        resolved = resolve([*layers, Layer(f"{self.origin} › {name}", found)], distributed=distributed_backend())
        if isinstance(resolved, Plan):
            return resolved
        try:
            raise_first(resolved)
        except AlignzooError as error:
            raise type(error)(f"stage {name}: {error.message}", hint=error.hint) from error

    def _of(self, name: Any, where: str, *, data: bool) -> Path:
        """What an earlier stage gives: its model, or its generated data."""
        stage = next((stage for stage in self.stages if stage.name == name), None)
        if stage is None:
            hint = suggest(str(name), self._named()) or f"earlier stages: {', '.join(self._named()) or 'none'}"
            raise UsageError(f"{where}: there is no earlier stage {shown(name)}", hint=hint)
        if data != (stage.action == "generate"):
            gives = "data, not a model" if stage.action == "generate" else "a model, not data"
            raise UsageError(f"{where}: stage {name} gives {gives}", hint="name another stage")
        if not stage.keeps:
            raise UsageError(
                f"{where} needs the model of stage {name}, which is not to be kept",
                hint="leave out --no-save-model; only a stage whose model no other needs can have `save-model: false`",
            )
        return stage.folder / (DATA_FILE if data else _MODEL_FOLDER)

    def _named(self) -> list[str]:
        return [stage.name for stage in self.stages]
