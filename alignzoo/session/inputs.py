"""A plan's loaded inputs: the model's files, the data, the policy with its initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Need
from alignzoo.contract.loss import LossCard
from alignzoo.data.groups import group_indices
from alignzoo.data.lengths import Lengths, lengths_of
from alignzoo.data.parts import Parts, load_parts, prepare_rows
from alignzoo.data.prepare import Prepared
from alignzoo.data.texts import load_texts, training_texts
from alignzoo.model.adapters import check_quantisation
from alignzoo.model.load import check_vocabulary, load_config, load_policy, load_tokenizer
from alignzoo.model.positions import fitted
from alignzoo.model.source import ModelSource, find_model
from alignzoo.model.weights import fingerprint
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator

TRAIN, HELD_OUT = "train", "held_out"


class Inputs:
    """A plan's loaded inputs: tokenizer, data and policy.

    Args:
        plan: the resolved plan; :attr:`plan` is adjusted to the model.
        accelerator: of this launch.
        uses: the parts of the data to train or evaluate on; without any, the data is not split.
        needs: a command's own needs besides those of the plan's methods.

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
        uses: Sequence[str] = (TRAIN, HELD_OUT),
        needs: frozenset[Need] = frozenset(),
    ) -> None:
        self._resolved = plan
        self.accelerator = accelerator
        self.report = report
        self.uses = tuple(uses)
        self.needs = plan.needs | needs
        self.folder: Path | None = None

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
        """The plan, with lengths limited to the model's positions."""
        return fitted(self._resolved, self.config, self.report)

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.source, self.settings)

    @cached_property
    def prepared(self) -> Prepared:
        """The tokenised rows of ``--data``, before splitting."""
        return prepare_rows(self.settings, self.tokenizer)

    @cached_property
    def parts(self) -> Parts:
        """The split data.

        Raises:
            DataError: see :func:`~alignzoo.data.parts.load_parts`.
        """
        reads = {loss.card.name: loss.card.reads for loss in self.plan.of("loss") if isinstance(loss.card, LossCard)}
        with self.accelerator.main_process_first():
            return load_parts(
                self.settings, self.tokenizer, needs=self.needs, reads=reads, report=self.report, folder=self.folder
            )

    @cached_property
    def lengths(self) -> Lengths:
        """Lengths of the training rows, with mismatched responses if a method needs them."""
        return lengths_of(self.parts.train, self.parts.partners.get(TRAIN))

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
        highest = self.parts.highest_id if self.uses else self.prepared.highest_id
        self.report.note(f"loading {self.settings.model}")
        policy: Any = load_policy(self.source, self.settings)
        check_vocabulary(policy, max(highest, self.tokenizer.pad_token_id), self.settings.model)
        return policy.to(self.accelerator.device)

    @cached_property
    def weights(self) -> str:
        """Content hash of the initial weights; read it before they change."""
        return fingerprint(self.policy)
