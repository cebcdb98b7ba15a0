"""Losses that read what a run computes beside log-probs, in the form of a user's plugin file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignzoo.contract.loss import LossCard
from alignzoo.contract.needs import Need
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Options, hookimpl


class ReadingOptions(Options):
    """None."""


class Reading(PreferenceLoss):
    """Logistic in the margin, plus a field of the chosen responses."""

    field = ""

    def __call__(self, pairs: Any) -> torch.Tensor:
        return F.softplus(-0.1 * (pairs.chosen_logps - pairs.rejected_logps)) + 0.1 * self.read(pairs)

    def read(self, pairs: Any) -> torch.Tensor:
        value = getattr(pairs, self.field) if self.field else pairs.progress
        return value + torch.zeros_like(pairs.chosen_logps)

    def rewards(self, pairs: Any) -> Any:
        return pairs.chosen_logps, pairs.rejected_logps

    def metrics(self, pairs: Any) -> Mapping[str, float | torch.Tensor]:
        return {"read": self.read(pairs).mean()}


class Kls(Reading):
    field = "chosen_kls"


class Entropies(Reading):
    field = "ref_chosen_entropies"


class Collisions(Reading):
    field = "chosen_collisions"


class Norms(Reading):
    field = "chosen_embedding_norms"


class Safe(Reading):
    field = "chosen_safe"


class Progress(Reading):
    field = ""


CARDS: dict[str, tuple[str, frozenset[Need]]] = {
    "reads-kls": ("Kls", frozenset({"reference-kl"})),
    "reads-entropies": ("Entropies", frozenset({"reference-entropy"})),
    "reads-collisions": ("Collisions", frozenset({"collisions"})),
    "reads-norms": ("Norms", frozenset({"embedding-gradients"})),
    "reads-safe": ("Safe", frozenset({"safety"})),
    "reads-progress": ("Progress", frozenset()),
}


@hookimpl
def alignzoo_methods() -> list[Any]:
    return [
        LossCard(
            kind="loss",
            name=name,
            target=f"{__name__}:{target}",
            options=ReadingOptions,
            summary=f"reads {target.lower()}",
            formula="softplus(−m/10) + x/10",
            needs=needs,
        )
        for name, (target, needs) in CARDS.items()
    ]
