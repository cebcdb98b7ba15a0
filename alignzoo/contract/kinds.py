"""The kinds of methods, one record each. Flags, help, recipes, plan files, checkpoints, listings, the contract and the
docs read this table.

A new kind is a module of the contract (its base class and its card), a line here, the stage that calls it, a file of
contract rules and a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.contract.aggregation import Aggregation, AggregationCard
from alignzoo.contract.card import Card
from alignzoo.contract.geometry import GeometryCard, GeometryController
from alignzoo.contract.loss import LossCard, PreferenceLoss
from alignzoo.contract.method import Method
from alignzoo.contract.reward import Reward, RewardCard
from alignzoo.contract.robust import RobustCard, RobustWrapper

Multiplicity = Literal["one", "mixture", "stack", "one + companions", "optional"]
"""How many methods of a kind a run has: exactly one; one or several with weights; any number in order; one and any
number of companions; one or none."""


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
        help: of the flag.
        rules: ``module:attribute`` of its contract rules.
        template: of ``alignzoo new``.
        default: the method of a run that names none, as ``distribution:name``; None where that depends on other
            methods, or there is none.
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
    default: str | None = None


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="loss",
            noun="loss",
            base=PreferenceLoss,
            card=LossCard,
            multiplicity="mixture",
            stage="objective: one value per pair, response or list",
            help="preference loss; several are added up by --loss.NAME.weight (repeatable)",
            rules="alignzoo.testing.losses:RULES",
            template="loss",
            default="alignzoo:dpo",
        ),
        Kind(
            name="aggregation",
            noun="aggregation",
            base=Aggregation,
            card=AggregationCard,
            multiplicity="optional",
            stage="objective: log-probs of tokens become those of responses",
            help="how log-probs of tokens become the log-prob of a response [default: the loss's]",
            rules="alignzoo.testing.aggregations:RULES",
            template="aggregation",
        ),
        Kind(
            name="robust",
            noun="wrapper",
            base=RobustWrapper,
            card=RobustCard,
            multiplicity="stack",
            stage="objective: values become the scalar that is minimised",
            help="robust wrapper, innermost first (repeatable)",
            rules="alignzoo.testing.robust:RULES",
            template="robust",
        ),
        Kind(
            name="geometry",
            noun="controller",
            base=GeometryController,
            card=GeometryCard,
            multiplicity="one + companions",
            stage="step: where the gradient is taken, and what happens after the optimizer's step",
            help="geometry controller, and its companions (repeatable)",
            rules="alignzoo.testing.geometry:RULES",
            template="geometry",
            default="alignzoo:plain",
        ),
        Kind(
            name="reward",
            noun="reward",
            base=Reward,
            card=RewardCard,
            multiplicity="optional",
            stage="session: scores of all responses, before training",
            help="where scores come from, if a method reads any [default: column or probe]",
            rules="alignzoo.testing.rewards:RULES",
            template="reward",
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
