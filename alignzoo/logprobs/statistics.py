"""What a forward pass computes beside log-probs: for a run, as its methods need it, and for one pass of a model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from alignzoo.contract.card import Need
from alignzoo.logprobs.teacher import Teacher


@dataclass(frozen=True)
class Ask:
    """What one pass of a model computes beside log-probs.

    Attributes:
        teacher: another model on the same batch; gives ``kls``.
        entropies: gives ``ref_entropies``, those of the model itself: it is the reference.
        collisions: gives ``collisions``.
        embeddings: gives ``embedding_norms``.
        teach: the result is a :class:`~alignzoo.logprobs.teacher.Taught`, for a later pass of another model.
    """

    teacher: Teacher | None = None
    entropies: bool = False
    collisions: bool = False
    embeddings: bool = False
    teach: bool = False

    @property
    def of_vocabulary(self) -> bool:
        """Whether the head's pass takes more than the log-probs of tokens."""
        return self.teacher is not None or self.entropies or self.collisions


NOTHING = Ask()
IN_EVERY_STEP = (
    "the reference is computed in every step, not before training: a method of this run reads its probabilities of the "
    "whole vocabulary"
)


@dataclass(frozen=True)
class Statistics:
    """What a run's methods read beside log-probs."""

    kl: bool = False
    entropies: bool = False
    collisions: bool = False
    embeddings: bool = False

    @classmethod
    def of(cls, needs: Collection[Need]) -> Statistics:
        """Those that the methods of a run need."""
        return cls(
            "reference-kl" in needs, "reference-entropy" in needs, "collisions" in needs, "embedding-gradients" in needs
        )

    @property
    def in_every_step(self) -> bool:
        """Whether the reference is computed in every step: what is read of it is no log-prob that could be cached."""
        return self.kl or self.entropies

    def of_reference(self) -> Ask:
        """What a pass of the reference computes."""
        return Ask(entropies=self.entropies, teach=self.kl)

    def of_policy(self, teacher: Teacher | None) -> Ask:
        """What a pass of the policy computes, beside the reference on the same batch."""
        return Ask(teacher if self.kl else None, collisions=self.collisions, embeddings=self.embeddings)
