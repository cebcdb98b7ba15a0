"""A plan's loaded inputs: the model's files, the data, the policy with its initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.heap import keep_freed_memory
from alignzoo.base.memo import Memo
from alignzoo.contract.card import Need
from alignzoo.contract.loss import LossCard, Reads
from alignzoo.contract.selector import SelectionModel
from alignzoo.data.division import Division, divide, prepare_rows
from alignzoo.data.groups import group_indices
from alignzoo.data.lengths import Lengths, lengths_of
from alignzoo.data.parts import Parts, parts_of
from alignzoo.data.prepare import Prepared
from alignzoo.data.stream import PairStream
from alignzoo.data.texts import load_texts, training_texts
from alignzoo.model.adapters import check_quantisation
from alignzoo.model.load import check_vocabulary, load_config
from alignzoo.model.positions import fitted
from alignzoo.model.precision import with_precision, with_weights
from alignzoo.model.source import ModelSource, find_model
from alignzoo.model.weights import fingerprint
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter
from alignzoo.session.pristine import policy_of, tokenizer_of
from alignzoo.session.selecting import model_of, selected
from alignzoo.session.shards import policy_in_shards

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

TRAIN, HELD_OUT = "train", "held_out"


class Inputs:
    """A plan's loaded inputs: tokenizer, data and policy.

    Args:
        plan: the resolved plan; :attr:`plan` is adjusted to the model.
        accelerator: of this launch.
        uses: the parts of the data to train or evaluate on; without any, the data is not split. None: no data at all.
        needs: a command's own needs besides those of the plan's methods.
        memo: what earlier sessions of this process have left.

    Attributes:
        folder: where what is made beside the weights is kept (noise manifest, probe, selections); None to keep nothing.
            It is set on the rank that writes.
    """

    def __init__(
        self,
        plan: Plan,
        accelerator: Accelerator,
        report: Reporter,
        *,
        uses: Sequence[str] | None = (TRAIN, HELD_OUT),
        needs: frozenset[Need] = frozenset(),
        memo: Memo | None = None,
    ) -> None:
        self._resolved = with_precision(plan)[0]
        self.accelerator = accelerator
        self.report = report
        self.uses = tuple(uses or ())
        self.reads_data = uses is not None
        self.needs = plan.needs | needs
        self.folder: Path | None = None
        self.memo = memo or Memo(limit=0)

    @cached_property
    def source(self) -> ModelSource:
        """Where the weights come from.

        Raises:
            ModelError: there is no such model.
            UsageError: it cannot be quantised as the settings ask.
        """
        source = find_model(self._resolved.settings.model)
        check_quantisation(self._resolved.settings, source)
        return source

    @cached_property
    def config(self) -> Any:
        """The model's config."""
        return load_config(self.source, self._resolved.settings)

    @cached_property
    def plan(self) -> Plan:
        """The plan, with lengths limited to the model's positions and the dtype of frozen weights."""
        plan = with_weights(self._resolved, self.source, trains=TRAIN in self.uses)
        return fitted(plan, self.config, self.report)

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    @cached_property
    def tokenizer(self) -> Any:
        return tokenizer_of(self.memo, self.source, self.settings)

    @cached_property
    def prepared(self) -> Prepared:
        """The tokenised rows of ``--data``, before splitting."""
        return prepare_rows(self.settings, self.tokenizer)

    @property
    def _reads(self) -> dict[str, Reads]:
        """The losses by name, with what each reads."""
        return {loss.card.name: loss.card.reads for loss in self.plan.of("loss") if isinstance(loss.card, LossCard)}

    @cached_property
    def division(self) -> Division:
        """The divided data, before any selector.

        Raises:
            DataError: see :func:`~alignzoo.data.parts.load_parts`.
        """
        with self.accelerator.main_process_first():
            return divide(
                self.settings,
                self.tokenizer,
                needs=self.needs,
                reads=self._reads,
                report=self.report,
                folder=self.folder,
                memo=self.memo,
            )

    @cached_property
    def parts(self) -> Parts:
        """The split data; training rows, if the session uses them, as selectors leave them.

        Raises:
            DataError, IncompatibleError: see :func:`~alignzoo.data.parts.load_parts` and
                :func:`~alignzoo.session.selecting.selected`.
        """
        division = self.division
        rows = selected(
            self.plan.of("selector") if TRAIN in self.uses else (),
            division,
            self.settings,
            self._selection_model,
            self.accelerator,
            self.report,
            self.folder,
        )
        return parts_of(division, self.settings, needs=self.needs, reads=self._reads, report=self.report, selected=rows)

    def _selection_model(self, rows: Dataset) -> SelectionModel:
        pad_id = self.tokenizer.pad_token_id
        return model_of(self.policy, rows, self.division.shape, pad_id, self.accelerator, self.report)

    @property
    def _highest_id(self) -> int:
        """The largest token id of the data, whether or not selectors have run."""
        if not self.reads_data:
            return 0
        if not self.uses:
            return self.prepared.highest_id
        known = vars(self).get("parts")
        return self.division.highest_id if known is None else known.highest_id

    @cached_property
    def lengths(self) -> Lengths:
        """Lengths of the training rows, with mismatched responses if a method needs them."""
        return lengths_of(self.parts.train, self.parts.partners.get(TRAIN))

    @cached_property
    def stream(self) -> PairStream:
        """The order in which training visits the rows."""
        rows, settings = self.parts, self.settings
        return PairStream(len(rows.train), settings.batch_size, settings.seed, shuffled=not rows.keep_order)

    @cached_property
    def steps(self) -> int:
        """Optimizer steps allowed by ``--epochs`` and ``--max-steps``; one epoch by default."""
        limits = [self.settings.max_steps] if self.settings.max_steps is not None else []
        if self.settings.epochs is not None or not limits:
            limits.append(self.stream.steps(self.settings.epochs or 1.0))
        return min(limits)

    @cached_property
    def groups(self) -> dict[str, int]:
        """The data's groups by number, if a method reads them."""
        return group_indices(self.parts) if "groups" in self.needs else {}

    def texts(self, given: str | None, count: int) -> list[list[int]]:
        """Token ids of general texts: those of the file ``given``, or the run's own training rows."""
        if given is None:
            return training_texts(self.parts.train, count, seed=self.settings.seed, report=self.report)
        with self.accelerator.main_process_first():
            texts = load_texts(given, count, tokenizer=self.tokenizer, seed=self.settings.seed, report=self.report)
        check_vocabulary(self.policy, max(map(max, texts)), self.settings.model)
        return texts

    @cached_property
    def policy(self) -> Any:
        """The policy, on its device, unwrapped.

        Raises:
            ModelError: its weights do not load, or it has fewer embeddings than the data has tokens.
        """
        highest = self._highest_id
        self.report.note(f"loading {self.settings.model}")
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        policy: Any = self._in_shards() or policy_of(self.memo, self.source, self.settings).to(self.accelerator.device)
        check_vocabulary(policy, max(highest, self.tokenizer.pad_token_id), self.settings.model)
        return policy

    def _in_shards(self) -> Any:
        """The policy read straight into the ranks' shards, if this launch shards it and its files allow that."""
        return policy_in_shards(self.plan, self.source, self.accelerator, self.report)

    @cached_property
    def weights(self) -> str:
        """Content hash of the initial weights; read it before they change."""
        return fingerprint(self.policy)
