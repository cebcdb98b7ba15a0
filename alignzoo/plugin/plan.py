"""A resolved run: its methods with their final options, and its settings, each with where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from alignzoo.plugin.card import Card, Need, Options
from alignzoo.plugin.settings import Settings

SANDBOX = "sandbox"


@dataclass(frozen=True)
class Method:
    """A chosen method with the distribution it comes from, its final options and where each value came from."""

    card: Card
    distribution: str
    options: Options
    origins: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Everything that determines a run."""

    loss: Method
    robust: tuple[Method, ...]
    geometry: Method
    settings: Settings
    origins: dict[str, str]
    notes: tuple[str, ...] = ()
    companions: tuple[Method, ...] = ()

    @property
    def methods(self) -> tuple[Method, ...]:
        return (self.loss, *self.robust, *self.controllers)

    @property
    def controllers(self) -> tuple[Method, ...]:
        """The controller that takes the gradient, and its companions."""
        return (self.geometry, *self.companions)

    @property
    def needs(self) -> frozenset[Need]:
        """What the methods, with these options, read from the core."""
        return frozenset().union(*(method.card.needs | method.options.needs() for method in self.methods))

    @property
    def batch_coupled(self) -> bool:
        return self.loss.card.batch_coupled or any(method.card.batch_coupled for method in self.robust)

    def sentence(self) -> str:
        """The plan as the words of a command line."""
        words = [f"--loss {self.loss.card.name}", *(f"--robust {method.card.name}" for method in self.robust)]
        return " ".join([*words, *(f"--geometry {method.card.name}" for method in self.controllers)])
