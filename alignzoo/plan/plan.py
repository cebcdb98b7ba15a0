"""A resolved run: its methods with their final options, and its settings, each with where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alignzoo.contract.card import WEIGHT, Card, Need, Options
from alignzoo.contract.kinds import KINDS, Kind
from alignzoo.plan.settings import Settings


@dataclass(frozen=True)
class Method:
    """A chosen method with the distribution it comes from, its final options and where each value came from.

    Attributes:
        weight: what it counts in a mixture; 1 elsewhere. Its origin, where it was given, is ``origins["weight"]``.
    """

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
    def under(self) -> frozenset[str]:
        """The aggregations that a loss, with these options, is defined under; empty for any."""
        return getattr(self.card, "under", frozenset()) or self.options.under()

    @property
    def needs(self) -> frozenset[Need]:
        """What the method, with these options, reads from the core."""
        return self.card.needs | self.options.needs()

    @property
    def needs_fp32(self) -> str:
        """Why the method, with these options, does not work in bf16; empty if it does."""
        return self.card.needs_fp32 or self.options.needs_fp32()

    @property
    def qualified(self) -> str:
        """``distribution:name``."""
        return f"{self.distribution}:{self.card.name}"


@dataclass(frozen=True)
class Plan:
    """Everything that determines a run.

    Attributes:
        methods: by kind, in the order of the table of kinds; of a kind that has one and companions, the one first.
        origins: where each setting came from, by its field; not there for a default.
        notes: what to say of the choice.
    """

    methods: dict[str, tuple[Method, ...]]
    settings: Settings
    origins: dict[str, str]
    notes: tuple[str, ...] = ()

    def of(self, kind: str) -> tuple[Method, ...]:
        """The methods of a kind, in order."""
        return self.methods.get(kind, ())

    def one(self, kind: str) -> Method:
        """The first method of a kind: of losses the one inside of the wrappers, of controllers the one that takes the
        gradient.

        Raises:
            LookupError: the run has none of that kind.
        """
        for method in self.of(kind):
            return method
        raise LookupError(f"this run has no {kind}")

    @property
    def all_methods(self) -> tuple[Method, ...]:
        """The methods of every kind, in the order of the table."""
        return tuple(method for methods in self.methods.values() for method in methods)

    @property
    def needs(self) -> frozenset[Need]:
        """What the methods, with these options, read from the core.

        What a method of the run meets is not asked of the core: scores that a loss reads are those of the reward, and
        only the reward may ask the data for some. Selectors read columns of the training rows, before all else.
        """
        serving = [kind for kind in KINDS.values() if kind.serves and self.of(kind.name)]
        asking = [name for name in self.methods if not (KINDS[name].serves or KINDS[name].early)]
        needs = needs_of(method for name in asking for method in self.of(name))
        for kind in serving:
            needs = needs - kind.serves | needs_of(self.of(kind.name))
        return needs

    @property
    def batch_coupled(self) -> bool:
        return any(method.couples for method in self.all_methods)

    def objective(self) -> str:
        """The objective in words: ``dpo under cdpo, then drdpo over the step``."""
        first, *others = self.of("loss")
        wrapped = _wrapped(first, self.of("robust"))
        if others and first.weight == 1 and ", " in wrapped:
            wrapped = f"({wrapped})"
        terms = [_times(first.weight, wrapped), *(_times(term.weight, term.card.name) for term in others)]
        return " + ".join(terms)

    def sentence(self) -> str:
        """The plan's methods as command-line flags."""
        words: list[str] = []
        for name, methods in self.methods.items():
            if not _is_default(KINDS[name], self.methods):
                words += [f"--{name} {method.card.name}" for method in methods]
                words += [
                    f"--{name}.{method.card.name}.{WEIGHT} {method.weight:g}"
                    for method in methods
                    if method.weight != 1
                ]
        return " ".join(words)


def _wrapped(loss: Method, wrappers: tuple[Method, ...]) -> str:
    """A loss under its wrappers, innermost first; the one that aggregates comes last, wherever it is named."""
    last = [wrapper.card.name for wrapper in wrappers if getattr(wrapper.card, "aggregates", False)]
    inner = [wrapper.card.name for wrapper in wrappers if wrapper.card.name not in last]
    if inner and last:
        return f"{' under '.join([loss.card.name, *inner])}, then {' and '.join(last)} over the step"
    return " under ".join([loss.card.name, *inner, *last])


def _times(weight: float, term: str) -> str:
    if weight == 1:
        return term
    return f"{weight:g} · ({term})" if " " in term else f"{weight:g} · {term}"


def needs_of(methods: Iterable[Method]) -> frozenset[Need]:
    """What some methods need together."""
    return frozenset().union(*(method.needs for method in methods))


def _is_default(kind: Kind, methods: Mapping[str, tuple[Method, ...]]) -> bool:
    """Whether the methods of a kind follow from those of the others."""
    if kind.default is None or isinstance(kind.default, str):
        return False
    others = {name: some for name, some in methods.items() if name != kind.name and not KINDS[name].early}
    cards = {name: [method.card for method in some] for name, some in others.items()}
    expected = kind.default(cards, needs_of(method for some in others.values() for method in some))
    return [method.qualified for method in methods[kind.name]] == list(expected)
