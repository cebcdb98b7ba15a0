"""From a plan, a model's shapes, hardware and row lengths to the memory and work of a step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from alignzoo.errors import ModelError
from alignzoo.logprobs import attention
from alignzoo.logprobs.attention import NAME, CannotPack
from alignzoo.logprobs.statistics import Statistics
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo_estimate.compute import ON_CPU, ON_GPU, Work, tokens, work
from alignzoo_estimate.geometry import Copies, copies, passes
from alignzoo_estimate.lengths import Data
from alignzoo_estimate.memory import GIB, Moment, moments
from alignzoo_estimate.micro_batch import Bytes, Lengths, Way
from alignzoo_estimate.optimizers import OptimizerBytes, optimizer_bytes
from alignzoo_estimate.shapes import Shapes, empty_model, shapes_of
from alignzoo_estimate.simulate import Simulator

Sharding = Literal["none", "ddp", "fsdp"]


@dataclass(frozen=True)
class Hardware:
    """The hardware of a run.

    Attributes:
        devices: GPUs, or 1 for a CPU.
        memory: of each, in bytes; None if unknown.
        rate: FLOP/s of matrix products of each; None if unknown.
    """

    devices: int
    cuda: bool
    memory: float | None
    rate: float | None
    sharding: Sharding

    @property
    def utilisation(self) -> float:
        """Assumed share of :attr:`rate` that a step reaches."""
        return ON_GPU if self.cuda else ON_CPU


class Model:
    """A model without weights: its shapes, and micro-batches simulated on them."""

    def __init__(self, config: Any) -> None:
        attention.register()
        self.config = config
        model = empty_model(config)
        self.shapes: Shapes = shapes_of(model)
        self._simulators: dict[bool, Simulator] = {}
        self.packable = _packable(model) and self._runs(packed=True)
        if not self.packable and not self._runs(packed=False):
            raise ModelError(
                f"{config.model_type} models cannot be estimated: their forward pass depends on more than shapes",
                hint="start a short run and watch its memory",
            )

    def _runs(self, *, packed: bool) -> bool:
        """Whether a micro-batch can be simulated this way, tried on a tiny one."""
        log = logging.getLogger("torch._subclasses.fake_tensor")
        before, log.disabled = log.disabled, True  # it prints errors that are caught here
        try:
            self.held(Way(False, 0, False, packed), [Lengths(3, (2, 2))] * 2)
        except (CannotPack, RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError):
            return False
        finally:
            log.disabled = before
        return True

    @property
    def stored(self) -> float:
        """Bytes of the weights on disk, in the config's dtype (fp32 if it has none)."""
        dtype = getattr(self.config, "dtype", None)
        return float(self.shapes.total * (dtype.itemsize if isinstance(dtype, torch.dtype) else 4))

    def held(self, way: Way, rows: Sequence[Lengths]) -> Bytes:
        """The memory of a micro-batch of these rows."""
        return self._simulator(way).run(way, rows)

    def frozen(self, way: Way, rows: Sequence[Lengths]) -> float:
        """Bytes of a forward pass of these rows without gradients."""
        return self._simulator(way).run_frozen(way, rows)

    def _simulator(self, way: Way) -> Simulator:
        if way.packed not in self._simulators:
            model = empty_model(self.config, **({"attn_implementation": NAME} if way.packed else {}))
            self._simulators[way.packed] = Simulator(model)
        return self._simulators[way.packed]


def _packable(model: Any) -> bool:
    """Whether a run would try packing with such a model."""
    from alignzoo.logprobs.forward import why_not_packed

    return model.config._attn_implementation == "sdpa" and why_not_packed(model) is None


@dataclass(frozen=True)
class Situation:
    """All inputs of an estimate."""

    plan: Plan
    model: Model
    hardware: Hardware
    data: Data

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self.plan.settings

    @property
    def shapes(self) -> Shapes:
        """The model's parameters by kind."""
        return self.model.shapes

    @property
    def trained(self) -> int:
        """Trainable parameters."""
        return self.shapes.adapter(self.settings.lora_r) if self.settings.lora_r else self.shapes.total

    @property
    def shards(self) -> int:
        """Ranks that a weight is sharded over."""
        return self.hardware.devices if self.hardware.sharding == "fsdp" else 1

    @property
    def packed(self) -> bool:
        """Whether each prompt is computed once."""
        return self.settings.packing and self.model.packable and not self.statistics.embeddings

    @property
    def statistics(self) -> Statistics:
        """What the methods read beside log-probs."""
        return Statistics.of(self.plan.needs)

    @property
    def rows_per_step(self) -> int:
        """Rows per step on one device."""
        return -(-self.settings.batch_size // self.hardware.devices)

    @property
    def rows_per_micro_batch(self) -> int:
        """Rows per forward pass on one device; under a token budget, of mean length."""
        budget = self.settings.tokens_per_micro_batch
        fitting = self.settings.micro_batch_size
        if budget is not None:
            fitting = max(1, budget // tokens([self.data.mean], self.packed))
        return min(fitting, self.rows_per_step)

    @property
    def micro_batches(self) -> int:
        """Forward passes per step on one device."""
        return -(-self.rows_per_step // self.rows_per_micro_batch)

    @property
    def keeps_reference(self) -> bool:
        """Whether a frozen copy of the weights is kept."""
        return self.computes_reference and (self.moves_reference or not self.settings.lora_r)

    @property
    def moves_reference(self) -> bool:
        """Whether a companion changes the reference's weights."""
        return any(getattr(method.card, "moves_reference", False) for method in self.plan.of("geometry"))

    @property
    def computes_reference(self) -> bool:
        """Whether the reference is computed within steps."""
        uncached = self.moves_reference or not self.settings.reference_cache
        return ("reference" in self.plan.needs and uncached) or self.statistics.in_every_step

    @property
    def ahead(self) -> tuple[Lengths, ...]:
        """A batch of rows for the reference before training; empty if that is not computed."""
        from alignzoo.reference.compute import TOKENS_ON_CPU, TOKENS_PER_BATCH

        if "reference" not in self.plan.needs or self.computes_reference:
            return ()
        usual = TOKENS_PER_BATCH if self.hardware.cuda else TOKENS_ON_CPU
        budget = self.settings.tokens_per_micro_batch or usual
        rows = max(1, budget // tokens([self.data.mean], self.packed))
        return self.data.micro_batch(rows, packed=self.packed)

    @property
    def coupled(self) -> bool:
        """Whether the objective couples the values of a step."""
        return self.plan.batch_coupled

    @property
    def passes(self) -> float:
        """Forward-backward passes of a step, on average."""
        return passes(self.plan)

    @property
    def copies(self) -> Copies:
        """Memory of the controllers, in copies of the trained weights."""
        return _copies(self.plan)

    @property
    def optimizer(self) -> OptimizerBytes:
        """Memory of the optimizer."""
        return _optimizer(self.settings.optimizer, self.settings.weight_decay, self.hardware.cuda)

    @property
    def recomputes_head(self) -> bool:
        """Whether the head recomputes its logits in the backward pass."""
        from alignzoo.logprobs.head import KEPT

        return self.rows_per_micro_batch * self.data.mean.response * self.shapes.vocabulary > KEPT

    @property
    def way(self) -> Way:
        """How a micro-batch is simulated."""
        settings = self.settings
        return Way(settings.precision == "bf16", settings.lora_r, settings.activation_checkpointing, self.packed)


_KEPT: dict[str, Copies] = {}


def _copies(plan: Plan) -> Copies:
    """As :func:`alignzoo_estimate.geometry.copies`, once per selection of controllers."""
    key = repr([(method.card.name, method.distribution, method.options) for method in plan.of("geometry")])
    if key not in _KEPT:
        _KEPT[key] = copies(plan)
    return _KEPT[key]


@cache
def _optimizer(optimizer: str, weight_decay: float, cuda: bool) -> OptimizerBytes:
    return optimizer_bytes(Settings(optimizer=optimizer, weight_decay=weight_decay), cuda=cuda)


@dataclass(frozen=True)
class Estimate:
    """The memory and work of a step on each device."""

    situation: Situation
    moments: tuple[Moment, ...]
    work: Work

    @property
    def peak(self) -> Moment:
        """The moment with the highest memory."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def fits(self) -> bool | None:
        """Whether the run fits; None if the memory is unknown."""
        memory = self.situation.hardware.memory
        return None if memory is None else self.peak.total <= memory

    @property
    def seconds(self) -> float | None:
        """Seconds per step, without communication; None if the rate is unknown."""
        hardware = self.situation.hardware
        return self.work.total / (hardware.rate * hardware.utilisation) if hardware.rate else None


def estimate(situation: Situation) -> Estimate:
    """The memory and the work of a step."""
    heaviest = situation.data.micro_batch(situation.rows_per_micro_batch, packed=situation.packed)
    held = situation.model.held(situation.way, heaviest)
    ahead = situation.model.frozen(situation.way, situation.ahead) if situation.ahead else 0.0
    return Estimate(situation, tuple(moments(situation, held, ahead)), work(situation))


__all__ = ["GIB", "Estimate", "Hardware", "Model", "Situation", "estimate"]
