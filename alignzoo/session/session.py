"""From a plan to tokenizer, data, policy, objective, reference, engine and batches: each created on demand and once.

    session = Session(plan, accelerator, report)
    session.parts          # loads and tokenises the data, before any weight
    session.engine         # loads the policy, tries packing, prepares the model for this launch

Each part creates what it depends on, so that unsuitable data is rejected before weights are loaded. Set parts that
already exist before they are requested: ``session.policy = model``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.batches import Batches, Sizes, StepBatches, by_length
from alignzoo.data.collate import TokenBatch, batch_columns
from alignzoo.data.lengths import lengths_of
from alignzoo.distributed.sharding import is_shard, prepare, resharding
from alignzoo.errors import AlignzooError
from alignzoo.logprobs.compiling import compile_layers
from alignzoo.logprobs.forward import Choice, forward_of
from alignzoo.logprobs.logps import Forward
from alignzoo.logprobs.offloading import offloading
from alignzoo.logprobs.rope import goes_by_batch
from alignzoo.logprobs.statistics import IN_EVERY_STEP, Statistics
from alignzoo.model.load import load_policy
from alignzoo.model.source import find_model
from alignzoo.objective.build import build_objective
from alignzoo.objective.objective import Objective
from alignzoo.plan.conflicts import GUIDES
from alignzoo.reference.cached import cached_reference
from alignzoo.reference.compute import Filling, Source
from alignzoo.reference.frozen import Reference, ReferenceForward, as_it_is, as_reference
from alignzoo.reference.identity import reference_identity
from alignzoo.reference.moving import MovingReference
from alignzoo.reference.store import Store, store_folder
from alignzoo.session.guides import Guides, load_guides
from alignzoo.session.inputs import HELD_OUT, TRAIN
from alignzoo.session.scores import Scores
from alignzoo.session.trials import trials_of
from alignzoo.step.engine import Engine
from alignzoo.step.held_out import HeldOut

if TYPE_CHECKING:
    from datasets import Dataset


class Session(Scores):
    """One plan in this process (and the other processes of its launch); see :class:`.inputs.Inputs`."""

    _untrained = True

    @cached_property
    def objective(self) -> Objective:
        """The losses under their wrappers and the aggregation."""
        aggregation = next(iter(self.plan.of("aggregation")), None)
        return build_objective(self.plan.of("loss"), self.plan.of("robust"), aggregation)

    @cached_property
    def choice(self) -> Choice:
        """The choice of forward, tested on some rows of the data."""
        part = TRAIN if TRAIN in self.uses else HELD_OUT
        rows = getattr(self.parts, part)
        first = self.stream.indices(0) if part == TRAIN else range(len(rows))
        choice = forward_of(
            self.plan,
            self.policy,
            rows,
            first,
            self.tokenizer.pad_token_id,
            self.accelerator,
            shape=self.parts.shape,
            partners=self.parts.partners.get(part),
            trials=trials_of(self.policy, self.weights) if self.accelerator.num_processes == 1 else None,
        )
        self.report.note(choice.why)
        return choice

    @cached_property
    def forward(self) -> Forward:
        """From a model and a batch to its log-probs."""
        forward = self.choice.forward
        return resharding(offloading(forward) if self.settings.activation_offloading else forward)

    @cached_property
    def statistics(self) -> Statistics:
        """What the methods read beside log-probs."""
        return Statistics.of(self.needs)

    @property
    def _reads_reference(self) -> bool:
        return "reference" in self.needs or self.statistics.in_every_step

    @cached_property
    def caches_reference(self) -> bool:
        """Whether reference log-probs come from the cache: enabled, and independent of the batch."""
        if not self._reads_reference or not self.settings.reference_cache:
            return False
        if self._moves_reference:
            return False
        if self.statistics.in_every_step:
            self.report.note(IN_EVERY_STEP)
            return False
        lengths = [lengths_of(rows, self.parts.partners.get(part)) for part, rows in self._used()]
        kind = goes_by_batch(self.policy, max(int(of_part.longest.max()) for of_part in lengths))
        if kind is not None:
            self.report.warn(
                f"the model's positions ({kind}) depend on the longest sequence of a batch, so results depend on "
                "--micro-batch-size, and the reference is computed in every step, in the policy's batches"
            )
        return kind is None

    @cached_property
    def _store_folder(self) -> Path | None:
        if not self.caches_reference:
            return None
        return store_folder(reference_identity(self.policy, self.settings, self.weights, way=self.choice.way))

    @property
    def _moves_reference(self) -> bool:
        return any(getattr(method.card, "moves_reference", False) for method in self.plan.of("geometry"))

    def moving_reference(self) -> MovingReference:
        """The reference of a run in which a method moves it.

        Raises:
            AlignzooError: none of its cards says so.
        """
        if not isinstance(self._frozen, MovingReference):
            raise AlignzooError(
                "a method wants to move the reference of this run", hint="its card must say moves_reference=True"
            )
        return self._frozen

    @cached_property
    def _frozen(self) -> Reference | MovingReference | None:
        """The reference as a model."""
        if not self._reads_reference or self.caches_reference:
            return None
        wrap = partial(prepare, self.accelerator, frozen=True, offload=self.settings.offload == "weights")
        if self._moves_reference:
            return MovingReference(self.policy, self.forward, wrap, self.statistics.of_reference())
        return Reference(self.policy, self.forward, wrap, self.statistics.of_reference(), copied=self._copy)

    def _copy(self, policy: Any) -> Any:
        """Another model with the policy's weights, which still are the initial ones."""
        if not is_shard(policy):
            return copy.deepcopy(policy)
        again = self._in_shards()
        self.choice.adopt(again)
        return again

    @cached_property
    def model(self) -> Any:
        """The policy as prepared for this launch: autocast, replicated or sharded."""
        _ = self.choice, self._frozen, self._store_folder  # they use the policy's weights, which sharding replaces
        if self.settings.compile:
            self.report.note("compiling the layers: the first passes take longer")
            compile_layers(self.policy)
        return prepare(self.accelerator, self.policy, offload=self.settings.offload == "weights")

    @cached_property
    def reference(self) -> ReferenceForward | None:
        """Log-probs at the initial weights; None if no method reads them."""
        if self._frozen is not None or self._store_folder is None:
            return self._frozen
        _ = self.model
        store = Store(self._store_folder, tokens="token-logps" in self.needs, report=self.report)
        filling = Filling(
            store,
            partial(self.forward, self.policy),
            self.accelerator,
            self.report,
            self.tokenizer.pad_token_id,
            is_shard(self.policy),
            self.settings.tokens_per_micro_batch,
            sample=self.choice.sample,
        )
        with as_reference(self.policy):  # it still has the initial weights
            return cached_reference(filling, self._sources)

    @cached_property
    def guides(self) -> Guides | None:
        """Log-probs of tokens under the guide models; None if no method reads any."""
        given: dict[str, str] = {need: getattr(self.settings, need) for need in GUIDES if need in self.needs}
        if not given:
            return None
        _ = self.choice  # which says what does not fit the policy before another model is loaded
        highest = max(self.parts.highest_id, self.tokenizer.pad_token_id)
        sources = partial(self._sources, packed=False)
        return load_guides(self.settings, given, self.tokenizer, highest, sources, self.accelerator, self.report)

    def _sources(self, packed: bool | None = None) -> list[Source]:
        """The rows whose reference log-probs are needed: those that training visits, and all held-out rows."""
        return [
            Source.of(
                rows,
                self.stream.visited(self.steps) if part == TRAIN else None,
                shape=self.parts.shape,
                packed=self.choice.packed if packed is None else packed,
                partners=self.parts.partners.get(part),
            )
            for part, rows in self._used()
        ]

    def _used(self) -> list[tuple[str, Dataset]]:
        """The parts that are trained or evaluated on, and there."""
        return [(part, rows) for part in self.uses if (rows := getattr(self.parts, part)) is not None]

    @torch.no_grad()
    def starting_logps(self, batches: Sequence[TokenBatch]) -> list[ResponseBatch | None]:
        """What the reference says of some batches, of a policy that is not trained yet; None where nothing reads it."""
        if not self._reads_reference:
            return [None] * len(batches)
        return [*as_it_is(self.policy, self.forward, batches, self.statistics.of_reference())]

    def become(self, trained: Path) -> None:
        """Replace the policy with a trained model of this plan; earlier results are kept."""
        self.report.note(f"loading {trained}")
        policy: Any = load_policy(find_model(str(trained)), self.settings).to(self.accelerator.device)
        self.choice.adopt(policy)
        for made in ("model", "engine"):
            vars(self).pop(made, None)
        self.policy, self._untrained = policy, False

    @cached_property
    def engine(self) -> Engine:
        """Model, forward and objective, shared by all steps."""
        run: dict[str, Any] = {"groups": self.groups, "needs": self.needs, "steps": self.steps}
        return Engine(self.model, self.forward, self.objective, self.accelerator, self.settings.seed, **run)

    @property
    def sizes(self) -> Sizes:
        """How rows are split into forward passes."""
        return Sizes(self.settings.micro_batch_size, self.settings.tokens_per_micro_batch, self.choice.packed)

    @cached_property
    def batches(self) -> Batches:
        """The source of batches, here the data; override for one that generates responses between steps."""
        on_a_gpu = self.accelerator.device.type == "cuda"  # copies from pinned memory overlap with host work
        guides = self.guides or (lambda batch: batch)
        return StepBatches(
            dataset=batch_columns(self.parts.train),
            shape=self.parts.shape,
            stream=self.stream,
            steps=self.steps,
            sizes=self.sizes,
            lengths=self.lengths,
            pad_id=self.tokenizer.pad_token_id,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            scores=self.scores.get(TRAIN),
            partners=self.parts.partners.get(TRAIN),
            ready=(lambda batch: guides(batch).pinned()) if on_a_gpu else guides,
        )

    @cached_property
    def held_out_batches(self) -> list[TokenBatch]:
        """The held-out rows in batches of similar length; none if nothing is held out."""
        if self.parts.held_out is None:
            return []
        batches = by_length(
            self.parts.held_out,
            self.sizes,
            self.tokenizer.pad_token_id,
            shape=self.parts.shape,
            scores=self.scores.get(HELD_OUT),
            partners=self.parts.partners.get(HELD_OUT),
            apart=self.parts.apart,
        )
        return batches if self.guides is None else [self.guides(batch) for batch in batches]

    @cached_property
    def held_out(self) -> HeldOut | None:
        """The evaluation on held-out rows."""
        if self.parts.held_out is None:
            return None
        return HeldOut(
            self.engine,
            self.reference,
            self.held_out_batches,
            self.report,
            apart=self.parts.apart,
            memo=self.memo,
            way=self.choice.way,
            starts_there=self._untrained,
        )
