"""The kinds of methods, one record each. Flags, help, recipes, plan files, checkpoints, listings, the contract and the
docs read this table.

A new kind is a module of the contract (its base class and its card), a line here, the stage that calls it, a file of
contract rules and a template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.contract import aggregation, geometry, loss, reward, robust
from alignzoo.contract.card import Card, Need
from alignzoo.contract.chosen import Choice
from alignzoo.contract.method import Method
from alignzoo.errors import AlignzooError

Multiplicity = Literal["one", "mixture", "stack", "one + companions", "optional"]
"""How many methods of a kind a run has: exactly one; one or several with weights; any number in order; one and any
number of companions (the card's fact ``companion``), the one first; one or none."""
Default = Callable[[Mapping[str, Sequence[Card]], frozenset[Need]], tuple[str, ...]]
"""The methods that a run has by default, as ``distribution:name``, from the cards of the other kinds and what these
methods need with their options."""


@dataclass(frozen=True)
class Kind:
    """A kind of method.

    Attributes:
        name: on the command line (``--NAME``), in recipes and in files.
        noun: what messages call such a method.
        base: the class that methods extend.
        card: the class of their cards.
        multiplicity: how many a run has.
        stage: which part of a run calls it, and on what.
        help: of the flag, without the default where that is one name.
        rules: ``module:attribute`` of its contract rules.
        template: of ``alignzoo new``.
        default: the method of a run that names none, as ``distribution:name``; or a function that gives what fits the
            other methods. Where it is a function, the plan in words leaves the default out.
        serves: the needs that it meets; a run has such a method only where another one needs one of them. Empty: it is
            needed by itself.
        rivals: facts of the card that only one method of a run may have, each with what such methods do.
        role: what the one method does that has no companion's fact, where a run has one and companions.
        conflicts: what cannot be combined, from the methods by kind and the launch.
        others: the key in ``plan.yaml`` of what a run has besides the first method, where it has at least one.
        beside: words that a short run of such a method needs, so that something uses it.
    """

    name: str
    noun: str
    base: type[Method]
    card: type[Card]
    multiplicity: Multiplicity
    stage: str
    help: str
    rules: str
    template: str
    default: str | Default | None = None
    serves: frozenset[Need] = frozenset()
    rivals: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    conflicts: Callable[[Choice, str], Iterator[AlignzooError]] | None = None
    others: str = ""
    beside: str = ""

    @property
    def phrase(self) -> str:
        """What such a method is called where nothing else says which kind is meant: ``robust wrapper``."""
        return self.noun if self.noun == self.name else f"{self.name} {self.noun}"

    @property
    def title(self) -> str:
        """A heading: ``Robust wrappers``."""
        return f"{self.phrase}{'es' if self.phrase.endswith('s') else 's'}".capitalize()

    @property
    def several(self) -> bool:
        """Whether a run may have several."""
        return self.multiplicity not in ("one", "optional")

    @property
    def facts(self) -> list[str]:
        """The facts of the card that only this kind has."""
        return [name for name in self.card.model_fields if name not in Card.model_fields]


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="loss",
            noun="loss",
            base=loss.PreferenceLoss,
            card=loss.LossCard,
            multiplicity="mixture",
            stage="objective: one value per pair, response or list",
            help="loss; several are added up, each times its --loss.NAME.weight (repeatable)",
            rules="alignzoo.testing.losses:RULES",
            template="loss",
            default="alignzoo:dpo",
            conflicts=loss.conflicts,
            others="terms",
        ),
        Kind(
            name="aggregation",
            noun="aggregation",
            base=aggregation.Aggregation,
            card=aggregation.AggregationCard,
            multiplicity="optional",
            stage="objective: log-probs of tokens become those of responses",
            help="how log-probs of tokens become the log-prob of a response [default: the loss's]",
            rules="alignzoo.testing.aggregations:RULES",
            template="aggregation",
            default=aggregation.default,
            conflicts=aggregation.conflicts,
        ),
        Kind(
            name="robust",
            noun="wrapper",
            base=robust.RobustWrapper,
            card=robust.RobustCard,
            multiplicity="stack",
            stage="objective: values become the scalar that is minimised",
            help="robust wrapper, innermost first (repeatable)",
            rules="alignzoo.testing.robust:RULES",
            template="robust",
            rivals={
                "aggregates": "replace the mean over the step",
                "relabels": "put labels of their own in the data's place",
            },
            conflicts=robust.conflicts,
        ),
        Kind(
            name="geometry",
            noun="controller",
            base=geometry.GeometryController,
            card=geometry.GeometryCard,
            multiplicity="one + companions",
            stage="step: where the gradient is taken, and what happens after the optimizer's step",
            help="geometry controller, and its companions (repeatable)",
            rules="alignzoo.testing.geometry:RULES",
            template="geometry",
            default="alignzoo:plain",
            rivals={"averages": "take the weights' place in evaluation and in what is saved"},
            role="choose where the gradient is taken",
            conflicts=geometry.conflicts,
            others="companions",
        ),
        Kind(
            name="reward",
            noun="reward",
            base=reward.Reward,
            card=reward.RewardCard,
            multiplicity="optional",
            stage="session: scores of all responses, before training",
            help="where scores come from, if a method reads any [default: column or probe]",
            rules="alignzoo.testing.rewards:RULES",
            template="reward",
            default=reward.default,
            serves=frozenset({"reward", "scores"}),
            beside="--robust soft-label",
        ),
    )
}


def kind_of(name: object) -> Kind:
    """The record of a kind.

    Raises:
        ValueError: there is no such kind.
    """
    if isinstance(name, str) and name in KINDS:
        return KINDS[name]
    close = suggest(name, KINDS) if isinstance(name, str) else None
    raise ValueError(f"there is no kind {shown(name)}; " + (close or f"there are: {', '.join(KINDS)}"))
