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
from alignzoo.contract import aggregation, geometry, judge, loss, reward, robust, selector
from alignzoo.contract.card import Card, Need
from alignzoo.contract.chosen import Choice
from alignzoo.contract.method import Method
from alignzoo.errors import AlignzooError

Multiplicity = Literal["one", "mixture", "stack", "one + companions", "optional"]
"""How many methods of a kind a run has: exactly one; a weighted mixture; an ordered stack of any size; one plus any
number of companions (the card's fact ``companion``), the one first; one or none."""
Default = Callable[[Mapping[str, Sequence[Card]], frozenset[Need]], tuple[str, ...]]
"""The default methods of a run, as ``distribution:name``, from the cards of the other kinds and their needs with the
given options."""


@dataclass(frozen=True)
class Kind:
    """A kind of method.

    Attributes:
        name: on the command line (``--NAME``), in recipes and in files.
        noun: the name of such a method in messages.
        base: the class that methods extend.
        card: the class of their cards.
        multiplicity: how many a run has.
        stage: the part of a run that calls it, and its input.
        help: of the flag, without a default that is a single name.
        rules: ``module:attribute`` of its contract rules.
        template: of ``alignzoo new``.
        default: the method of a run that names none, as ``distribution:name``; or a function of the other methods. The
            plan's sentence omits a default from a function.
        early: whether its needs are met from the training rows' columns before training, so that neither the objective
            nor the held-out rows have to meet them.
        serves: the needs it meets; a run has such a method only if another one needs one of them. Empty: always needed.
        rivals: card facts that only one method of a run may have, each with what such methods do.
        role: what the one method that is not a companion does, in kinds with companions.
        around_first: whether it applies to the first loss of a mixture alone.
        conflicts: what cannot be combined, from the methods by kind and the launch.
        others: the key in ``plan.yaml`` for methods after the first.
        beside: what a run needs on its command line to use such a method.
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
    early: bool = False
    serves: frozenset[Need] = frozenset()
    rivals: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    around_first: bool = False
    conflicts: Callable[[Choice, str], Iterator[AlignzooError]] | None = None
    others: str = ""
    beside: str = ""

    @property
    def phrase(self) -> str:
        """The name of such a method including its kind: ``robust wrapper``."""
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
        """The card facts specific to this kind."""
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
            help="loss; several form a sum weighted by --loss.NAME.weight (repeatable)",
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
            around_first=True,
            default=aggregation.default,
            conflicts=aggregation.conflicts,
        ),
        Kind(
            name="robust",
            noun="wrapper",
            base=robust.RobustWrapper,
            card=robust.RobustCard,
            multiplicity="stack",
            stage="objective: from values to the scalar to minimise",
            help="robust wrapper, innermost first (repeatable)",
            rules="alignzoo.testing.robust:RULES",
            template="robust",
            around_first=True,
            rivals={
                "aggregates": "replace the mean over the step",
                "relabels": "replace the data's labels",
            },
            conflicts=robust.conflicts,
        ),
        Kind(
            name="geometry",
            noun="controller",
            base=geometry.GeometryController,
            card=geometry.GeometryCard,
            multiplicity="one + companions",
            stage="step: where the gradient is taken, and what happens after the optimizer step",
            help="geometry controller, and its companions (repeatable)",
            rules="alignzoo.testing.geometry:RULES",
            template="geometry",
            default="alignzoo:plain",
            rivals={
                "averages": "replace the weights for evaluation and saving",
                "moves_reference": "move the reference",
            },
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
            help="source of response scores, if a method reads any [default: column or probe]",
            rules="alignzoo.testing.rewards:RULES",
            template="reward",
            default=reward.default,
            serves=frozenset({"reward", "scores"}),
        ),
        Kind(
            name="selector",
            noun="selector",
            base=selector.Selector,
            card=selector.SelectorCard,
            multiplicity="stack",
            stage="session: which training rows are used, in what order, under which labels",
            help="selector of training rows, applied in the order given (repeatable)",
            rules="alignzoo.testing.selectors:RULES",
            template="selector",
            early=True,
            rivals={"orders": "set the order of the training rows"},
            conflicts=selector.conflicts,
        ),
        Kind(
            name="judge",
            noun="judge",
            base=judge.Judge,
            card=judge.JudgeCard,
            multiplicity="stack",
            stage="evaluation: verdicts on generated responses",
            help="judge of generated responses, several side by side (repeatable) [default: the suite's or data's own]",
            rules="alignzoo.testing.judges:RULES",
            template="judge",
            early=True,
            beside="--eval-suite sandbox-borderline",
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
    raise ValueError(f"there is no kind {shown(name)}; " + (close or f"kinds: {', '.join(KINDS)}"))
