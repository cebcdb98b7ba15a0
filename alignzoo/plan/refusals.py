"""Which methods cannot be combined, two at a time, with the default options of both.

The rules are those of a run (:func:`~alignzoo.plan.conflicts.conflicts_between`); only the selection of methods from
words is left out, so that thousands of pairs take less than a second.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from alignzoo.contract.card import Card, Need, Options
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError, IncompatibleError
from alignzoo.plan.conflicts import conflicts_between
from alignzoo.plan.picks import is_companion
from alignzoo.plan.plan import Method
from alignzoo.plan.settings import Settings
from alignzoo.plugin.build import build_options
from alignzoo.plugin.registry import Registry

Problems = dict[str, IncompatibleError]
"""Problems by message."""


@dataclass(frozen=True)
class Refusal:
    """Two methods that cannot be combined, for one reason.

    Attributes:
        first: of the kind that comes first in the table of kinds; of two of a kind, the one that is named first.
        problem: the reason; it names both.
        either_order: two of a kind that are refused in the other order as well.
    """

    first: Method
    second: Method
    problem: IncompatibleError
    either_order: bool = True


class Pairs:
    """Refused pairs of methods in a run that has the default methods besides.

    Args:
        registry: where defaults are looked up.
        settings: of the run.
        distributed: its backend, see :func:`~alignzoo.plan.resolve.resolve`.
    """

    def __init__(self, registry: Registry, settings: Settings | None = None, distributed: str = "none") -> None:
        self._registry = registry
        self._settings = settings or Settings()
        self._distributed = distributed
        self._found: dict[tuple[str, str], list[Method]] = {}
        self._alone: dict[tuple[str, str], Problems] = {}
        self.methods: dict[str, list[Method]] = {
            kind: [
                _with_defaults(card, plugin.distribution)
                for plugin, card in registry.entries(kind)
                if isinstance(card, Card)
            ]
            for kind in KINDS
        }
        """All methods by kind, each with its default options."""
        self._count = Counter((kind, m.card.name) for kind, some in self.methods.items() for m in some)

    def method_of(self, card: Card) -> Method:
        """The method of a card, with its default options."""
        return next(method for method in self.methods[card.kind] if method.card is card)

    def name_of(self, method: Method) -> str:
        """The shortest unambiguous name of a method."""
        return method.card.name if self._count[method.card.kind, method.card.name] == 1 else method.qualified

    def all(self) -> list[Refusal]:
        """The refusals among all methods."""
        every = [method for methods in self.methods.values() for method in methods]
        return [refusal for one, other in itertools.combinations(every, 2) for refusal in self.between(one, other)]

    def of(self, method: Method) -> list[Refusal]:
        """The refusals of one method."""
        found = list[Refusal]()
        for other in itertools.chain(*self.methods.values()):
            if other.card is not method.card:
                found += self.between(*sorted((method, other), key=_rank))
        return found

    def between(self, one: Method, other: Method) -> list[Refusal]:
        """The refusals of two methods; ``one`` is not of a later kind than ``other``.

        Reasons that either of them has alone do not count. A run has one method of some kinds, and two of those are no
        pair.
        """
        if one.card.kind != other.card.kind:
            return [Refusal(one, other, problem) for problem in self._together(one, other).values()]
        if not KINDS[one.card.kind].several:
            return []
        forward, backward = self._together(one, other), self._together(other, one)
        rules = [{problem.rule for problem in found.values()} for found in (forward, backward)]
        always = [Refusal(one, other, p) for p in forward.values() if p.rule in rules[1]]
        if always:
            return always
        if forward and backward:  # for different reasons
            return [Refusal(one, other, problem) for problem in (*forward.values(), *backward.values())]
        ordered = [Refusal(one, other, problem, either_order=False) for problem in forward.values()]
        return ordered + [Refusal(other, one, problem, either_order=False) for problem in backward.values()]

    def nowhere(self, method: Method) -> list[IncompatibleError]:
        """Why a method cannot be used at all, for example on this launch."""
        if method.card.kind == "loss":
            return list(self.alone(method).values())
        problems = self.alone(method)
        for loss in self.methods["loss"] if problems else ():
            with_it = self._problems(loss, method)
            problems = {message: problem for message, problem in problems.items() if message in with_it}
        return list(problems.values())

    def alone(self, method: Method) -> Problems:
        """Why a method cannot be combined with the defaults."""
        key = (method.card.kind, method.qualified)
        if key not in self._alone:
            self._alone[key] = self._problems(method)
        return self._alone[key]

    def _together(self, first: Method, second: Method) -> Problems:
        """The reasons that neither of two methods has alone."""
        apart = {*self._apart(first, second), *self._apart(second, first)}
        return {text: problem for text, problem in self._problems(first, second).items() if text not in apart}

    def _apart(self, method: Method, other: Method) -> set[str]:
        """The reasons of a method that are none against the other one; that may be the default it was alone with."""
        alone = self.alone(method)
        if alone and any(other is beside for some in self._completed((method,)).values() for beside in some):
            return {problem.message for problem in self.nowhere(method)}
        return {*alone}

    def _problems(self, *picked: Method) -> Problems:
        """Why these methods cannot be combined, in this order."""
        found = conflicts_between(self._completed(picked), self._settings, self._distributed)
        return {problem.message: problem for problem in found if isinstance(problem, IncompatibleError)}

    def _completed(self, picked: Sequence[Method]) -> dict[str, tuple[Method, ...]]:
        """These methods and the defaults of the other kinds, as a run has them."""
        methods = {kind: [method for method in picked if method.card.kind == kind] for kind in KINDS}
        for kind in KINDS.values():
            some = methods[kind.name]
            some.sort(key=lambda method: is_companion(method.card))
            if isinstance(kind.default, str) and all(is_companion(method.card) for method in some):
                some[:0] = self._find(kind.name, kind.default)
        for kind in KINDS.values():
            if callable(kind.default) and not methods[kind.name]:
                others = {name: some for name, some in methods.items() if name != kind.name and not KINDS[name].early}
                needs = frozenset[Need]().union(*(method.needs for some in others.values() for method in some))
                cards = {name: [method.card for method in some] for name, some in others.items()}
                for name in kind.default(cards, needs):
                    methods[kind.name] += self._find(kind.name, name)
        return {kind: tuple(some) for kind, some in methods.items()}

    def _find(self, kind: str, name: str) -> list[Method]:
        """The method of a name; none where a plugin's card names what is not there."""
        if (kind, name) not in self._found:
            try:
                card = self._registry.find(kind, name)
            except AlignzooError:
                card = None
            self._found[kind, name] = [method for method in self.methods[kind] if method.card is card]
        return self._found[kind, name]


def _with_defaults(card: Card, distribution: str) -> Method:
    """A method with its default options; without any where one has no default."""
    try:
        options = build_options(card, {})
    except AlignzooError:
        options = Options()
    return Method(card, distribution, options)


def _rank(method: Method) -> int:
    return list(KINDS).index(method.card.kind)
