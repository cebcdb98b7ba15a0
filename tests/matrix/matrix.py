"""Every loss under every wrapper, controller and aggregation: what each combination does on a tiny model.

A combination is either refused by the resolver, or trains two steps: with finite numbers, with weights that move, and
to the same weights in one micro-batch of four rows and in four of one. Where a loss is so far in its flat part that
float64 does not resolve the move (SimPO of sums), a gradient above 0 has to do.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from alignzoo.contract.card import Card
from alignzoo.contract.loss import LossCard
from alignzoo.errors import AlignzooError
from alignzoo.logprobs.forward import Choice
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry
from alignzoo.probe.probe import Probe
from alignzoo.report import Reporter
from alignzoo.session.session import Session
from alignzoo.train.begin import begin

GEOMETRIES = ("plain", "shapo-token", "sam")
ROWS = 4
STEPS = 2
TOLERANCE = 1e-8
UNRESOLVED = 1e-12
"""The norm of a gradient that need not change a weight of float64."""


@dataclass(frozen=True)
class Combination:
    """One of each kind; ``none`` for no wrapper."""

    loss: str
    robust: str
    aggregation: str
    geometry: str

    def __str__(self) -> str:
        return " × ".join((self.loss, self.robust, self.aggregation, self.geometry))


@dataclass(frozen=True)
class Outcome:
    """``refused`` is the reason, None if it trained."""

    refused: str | None = None


def names(kind: str) -> list[str]:
    """alignzoo's own methods of a kind."""
    entries = registry().entries(kind)
    return sorted(m.name for plugin, m in entries if isinstance(m, Card) and plugin.distribution == OWN_DISTRIBUTION)


def combinations(loss: str | None = None) -> list[Combination]:
    """All of them, or those of one loss."""
    axes = ([loss] if loss else names("loss"), ["none", *names("robust")], names("aggregation"), GEOMETRIES)
    return [Combination(*some) for some in itertools.product(*axes)]


def sample(count: int, seed: int) -> list[Combination]:
    """A seeded sample in which every method takes part as often as any other of its kind, up to one."""
    draw = random.Random(seed)

    def column(options: list[str]) -> Iterator[str]:
        while True:
            yield from draw.sample(options, len(options))

    axes = (names("loss"), ["none", *names("robust")], names("aggregation"), list(GEOMETRIES))
    columns = [column(list(axis)) for axis in axes]
    return [Combination(*(next(axis) for axis in columns)) for _ in range(count)]


class Matrix:
    """The tiny model and its data, made once, and what combinations do on them.

    Args:
        folder: for the model, the data and other files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accelerator = Accelerator(cpu=True)
        self._parts: dict[Any, Any] = {}
        self._choices: dict[Any, Choice] = {}
        self._resources: dict[str, Any] = {}

    def outcome(self, combination: Combination) -> Outcome:
        """What the combination does.

        Raises:
            AssertionError: a third outcome: an error while it trains, a number that is not finite, weights that did
                not move, or other weights when the step is cut into other micro-batches.
        """
        plan = self.plan(combination)
        if not isinstance(plan, Plan):
            assert all(problem.exit_code in (2, 3) and problem.message for problem in plan), combination
            return Outcome("; ".join(problem.message for problem in plan))
        whole, cut = (self.train(plan, size, combination) for size in (ROWS, 1))
        for name, tensor in whole.items():
            assert torch.isfinite(tensor).all(), f"{combination}: {name} is not finite"
            error = (tensor - cut[name]).abs().max()
            moves = (tensor - self.weights[name]).abs().max()
            assert error <= TOLERANCE * max(1.0, float(moves)), (
                f"{combination}: 1×4 and 4×1 differ by {error:.1e} in {name}"
            )
        return Outcome()

    def plan(self, combination: Combination) -> Plan | list[AlignzooError]:
        """The plan of a combination, or why there is none."""
        values: dict[str, Any] = {
            "loss": combination.loss,
            "robust": [combination.robust],
            "aggregation": combination.aggregation,
            "geometry": combination.geometry,
            "model": str(self.model_folder),
            "data": str(self.data_file(combination.loss)),
            "batch-size": ROWS,
            "max-steps": STEPS,
            "epochs": 100,
            "lr": 1e-3,
            "warmup-steps": 0,
            "optimizer": "sgd",
            "eval-share": 0,
            "probe.share": 0.4,
            # Short responses of different lengths: losses on averages stay out of their flat parts on sums.
            "max-length": 30,
            "max-prompt-length": 24,
        }
        geometry: Any = registry().find("geometry", combination.geometry)
        if "rho" in geometry.options.model_fields:
            values["geometry.rho"] = 0.005  # the default moves a model this small so far that losses saturate
        return resolve([Layer("matrix", values | self.extra(combination))])

    def extra(self, combination: Combination) -> dict[str, Any]:
        """The other frozen models, for methods that read them: the tiny model with other weights."""
        chosen = {"loss": combination.loss, "robust": combination.robust, "aggregation": combination.aggregation}
        cards: list[Any] = [registry().find(kind, name) for kind, name in chosen.items() if name != "none"]
        needs = set().union(*(card.needs for card in cards))
        return {
            name: str(self.other_model(seed)) for seed, name in enumerate(("guide", "contrast"), 1) if name in needs
        }

    def other_model(self, seed: int) -> Path:
        """The folder of the tiny model with other weights."""
        import transformers

        folder = self.folder / f"model-{seed}"
        if not folder.is_dir():
            torch.manual_seed(seed)
            config = transformers.AutoConfig.from_pretrained(self.model_folder)
            transformers.LlamaForCausalLM(config).save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        return folder

    def train(self, plan: Plan, size: int, combination: Combination) -> dict[str, torch.Tensor]:
        """The weights after two steps in micro-batches of ``size`` rows."""
        session = self.session(replace(plan, settings=plan.settings.model_copy(update={"micro_batch_size": size})))
        loop, norms = begin(session, self.folder / "run"), []
        for step in range(STEPS):
            line = loop._step(step)
            norms.append(line["grad_norm"])
            numbers = {name: value for name, value in line.items() if isinstance(value, float)}
            bad = [name for name, value in numbers.items() if value != value or abs(value) == float("inf")]
            assert not bad, f"{combination}: {bad[0]} is {numbers[bad[0]]} in step {step + 1}"
            loop.done += 1
        found = {name: tensor.detach().clone() for name, tensor in session.policy.state_dict().items()}
        moved = any(not torch.equal(tensor, self.weights[name]) for name, tensor in found.items())
        assert moved or 0 < max(norms) < UNRESOLVED, f"{combination}: no weight moved, gradient norms {norms}"
        return found

    def session(self, plan: Plan) -> Session:
        """A session of this plan with the tiny model in float64, and with data and probe that were made before."""
        session = Session(plan, self.accelerator, Reporter(), uses=("train",))
        shared: dict[str, Any] = vars(session)
        shared["policy"] = copy.deepcopy(self.model)
        shared["tokenizer"] = self.tokenizer
        shared["weights"] = "the tiny model"
        shared["probe"] = lambda given: self.probe
        key = (plan.settings.data, "mismatched" in session.needs)
        if key not in self._parts:
            self._parts[key] = session.parts
        shared["parts"] = self._parts[key]
        needs = frozenset(session.needs)
        if needs in self._choices:
            shared["choice"] = self._choices[needs]
            self._choices[needs].adopt(session.policy)
        else:
            self._choices[needs] = session.choice
        return session

    @cached_property
    def model_folder(self) -> Path:
        """A llama of one layer with the sandbox's tokenizer."""
        import transformers
        from alignzoo_sandbox import MODEL_PATH

        folder = self.folder / "model"
        tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_PATH)
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    @cached_property
    def tokenizer(self) -> Any:
        import transformers

        return transformers.AutoTokenizer.from_pretrained(self.model_folder)

    @cached_property
    def model(self) -> Any:
        import transformers

        model: Any = transformers.AutoModelForCausalLM.from_pretrained(self.model_folder, dtype=torch.float64)
        return model.eval()

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        return dict(self.model.state_dict())

    @cached_property
    def probe(self) -> Probe:
        weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
        return Probe(weight, torch.zeros(2), {})

    def data_file(self, loss: str) -> Path:
        """Rows that the loss can read, with every column that a method may ask for."""
        card: Any = registry().find("loss", loss)
        lists = isinstance(card, LossCard) and card.reads == "lists"
        return self._ranked if lists else self._pairs

    @cached_property
    def _pairs(self) -> Path:
        from alignzoo_sandbox import preference_rows

        rows = preference_rows("train", 120)
        unsafe = [row for row in rows if not row["rejected_safe"]]
        some = unsafe[:32] + [row for row in rows if row["rejected_safe"]][:16]
        path = self.folder / "pairs.jsonl"
        draw = random.Random(0)
        with path.open("w") as file:
            for i, row in enumerate(some):
                scores = {"chosen_score": draw.gauss(0.5, 1), "rejected_score": draw.gauss(0, 1)}
                file.write(json.dumps({**row, **scores, "group": f"g{i % 3}"}) + "\n")
        return path

    @cached_property
    def _ranked(self) -> Path:
        from alignzoo_sandbox import preference_rows

        path = self.folder / "ranked.jsonl"
        rows, draw = preference_rows("train", 120), random.Random(1)
        with path.open("w") as file:
            for i, row in enumerate(rows[:48]):
                others = [other["chosen"] for other in draw.sample(rows[48:], 1 + i % 3)]
                responses = [row["chosen"], *others, row["rejected"]]
                scores = sorted((draw.gauss(0, 1) for _ in responses), reverse=True)
                safe = [True] * (len(responses) - 1) + [row["rejected_safe"]]
                row = {
                    "prompt": row["prompt"],
                    "responses": responses,
                    "scores": scores,
                    "safe": safe,
                    "group": f"g{i % 3}",
                }
                file.write(json.dumps(row) + "\n")
        return path
