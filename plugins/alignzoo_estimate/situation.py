"""All inputs of an estimate, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from alignzoo.logprobs.statistics import Statistics
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo_estimate import knobs
from alignzoo_estimate.compute import tokens
from alignzoo_estimate.geometry import Added, added, passes
from alignzoo_estimate.hardware import Hardware
from alignzoo_estimate.knobs import BF16, FP32
from alignzoo_estimate.lengths import Data
from alignzoo_estimate.micro_batch import Lengths, Way
from alignzoo_estimate.model import Model
from alignzoo_estimate.optimizers import OptimizerBytes, optimizer_bytes
from alignzoo_estimate.shapes import Shapes


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
    def bf16(self) -> bool:
        """Whether matrix products are in bf16."""
        return knobs.computes_in_bf16(self.plan, cuda=self.hardware.cuda)

    @property
    def frozen_bytes(self) -> int:
        """Bytes of a weight that is not trained."""
        return knobs.frozen_bytes(self.settings, bf16=self.bf16)

    @property
    def base_bytes(self) -> float:
        """Bytes of a weight of the base model: frozen under an adapter, trained without."""
        return self.frozen_bytes if self.settings.lora_r else FP32

    @property
    def offloads_weights(self) -> bool:
        """Whether shards are in host memory."""
        return self.hardware.sharding == "fsdp" and self.settings.offload == "weights"

    @property
    def gathers_bf16(self) -> bool:
        """Whether FSDP2 gathers the layers' linear maps in bf16: where they are trained, and beside norms alone."""
        narrow = self.hardware.sharding == "fsdp" and self.bf16 and not self.settings.lora_r
        return narrow and not self.shapes.experts

    @property
    def offloads_activations(self) -> bool:
        """Whether saved activations are in the host memory of a GPU."""
        return self.hardware.cuda and self.settings.activation_offloading

    def group_bytes(self, group: Literal["root", "layers"]) -> float:
        """Whole weights of FSDP2's root group (embeddings, head, last norm) or of all its groups of layers, as they are
        gathered."""
        of_layers = self.shapes.layers + self.shapes.experts
        if group == "root":
            return self.base_bytes * (self.shapes.total - of_layers)
        if self.gathers_bf16:
            return float(FP32 * of_layers - (FP32 - BF16) * self.shapes.linear)
        return self.base_bytes * of_layers + (self.trained * FP32 if self.settings.lora_r else 0.0)

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
    def forwards(self) -> float:
        """Forward passes of a step without a backward one, on average: of controllers, and those that a coupled
        objective takes first."""
        return self.added.forwards + (self.passes if self.coupled and self.micro_batches > 1 else 0.0)

    @property
    def added(self) -> Added:
        """What the controllers add to a plain step."""
        return _added(self.plan)

    @property
    def optimizer(self) -> OptimizerBytes:
        """Memory of the optimizer."""
        return _optimizer(self.settings.optimizer, self.settings.weight_decay, self.hardware.cuda)

    @property
    def recomputes_head(self) -> bool:
        """Whether the head recomputes its logits in the backward pass."""
        from alignzoo.logprobs.head import KEPT

        logits = self.rows_per_micro_batch * self.data.mean.response * self.shapes.vocabulary
        return logits * (2 if self.bf16 else 4) > KEPT

    @property
    def way(self) -> Way:
        """How a micro-batch is simulated."""
        settings = self.settings
        frozen, cached, cuda = self.frozen_bytes == knobs.BF16, self.hardware.sharding != "fsdp", self.hardware.cuda
        return Way(self.bf16, settings.lora_r, settings.activation_checkpointing, self.packed, frozen, cached, cuda)


_KEPT: dict[str, Added] = {}


def _added(plan: Plan) -> Added:
    """As :func:`alignzoo_estimate.geometry.added`, once per selection of controllers."""
    key = repr([(method.card.name, method.distribution, method.options) for method in plan.of("geometry")])
    if key not in _KEPT:
        _KEPT[key] = added(plan)
    return _KEPT[key]


@cache
def _optimizer(optimizer: str, weight_decay: float, cuda: bool) -> OptimizerBytes:
    return optimizer_bytes(Settings(optimizer=optimizer, weight_decay=weight_decay), cuda=cuda)
