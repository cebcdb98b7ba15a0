"""A resolved run: its methods with their final options, and its settings, each with where it came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from alignzoo.contract.card import Card, Need, Options
from alignzoo.plan.settings import Settings

SANDBOX = "sandbox"


def default_reward(needs: frozenset[Need]) -> str | None:
    """The reward (``distribution:name``) of a run that names none: the data's columns where a method asks for scores,
    else the safety probe; None where no method reads any."""
    if "scores" in needs:
        return "alignzoo:column"
    return "alignzoo:probe" if "reward" in needs else None


@dataclass(frozen=True)
class Method:
    """A chosen method with the distribution it comes from, its final options and where each value came from."""

    card: Card
    distribution: str
    options: Options
    origins: dict[str, str] = field(default_factory=dict)
    weight: float = 1.0

    @property
    def couples(self) -> bool:
        """Whether a value of the method, with these options, depends on the others of its step."""
        return bool(getattr(self.card, "batch_coupled", False)) or self.options.couples()

    @property
    def needs(self) -> frozenset[Need]:
        """What the method, with these options, reads from the core."""
        return self.card.needs | self.options.needs()


@dataclass(frozen=True)
class Plan:
    """Everything that determines a run; ``reward`` is None where no method reads scores."""

    loss: Method
    robust: tuple[Method, ...]
    geometry: Method
    settings: Settings
    origins: dict[str, str]
    notes: tuple[str, ...] = ()
    companions: tuple[Method, ...] = ()
    reward: Method | None = None

    @property
    def methods(self) -> tuple[Method, ...]:
        return (*self.objective, *((self.reward,) if self.reward is not None else ()))

    @property
    def objective(self) -> tuple[Method, ...]:
        """The methods that make the objective and its gradient: all but the reward, which they read."""
        return (self.loss, *self.robust, *self.controllers)

    @property
    def controllers(self) -> tuple[Method, ...]:
        """The controller that takes the gradient, and its companions."""
        return (self.geometry, *self.companions)

    @property
    def needs(self) -> frozenset[Need]:
        """What the methods, with these options, read from the core. Scores are asked of the data only by the reward:
        the other methods have them from it."""
        if self.reward is None:
            return _needs_of(self.objective)
        return _needs_of(self.objective) - {"scores"} | self.reward.needs

    @property
    def batch_coupled(self) -> bool:
        return any(method.couples for method in (self.loss, *self.robust))

    def sentence(self) -> str:
        """The plan as the words of a command line."""
        words = [f"--loss {self.loss.card.name}", *(f"--robust {method.card.name}" for method in self.robust)]
        words += [f"--geometry {method.card.name}" for method in self.controllers]
        reward, default = self.reward, default_reward(_needs_of(self.objective))
        if reward is not None and f"{reward.distribution}:{reward.card.name}" != default:
            words.append(f"--reward {reward.card.name}")
        return " ".join(words)


def _needs_of(methods: Iterable[Method]) -> frozenset[Need]:
    return frozenset().union(*(method.needs for method in methods))
