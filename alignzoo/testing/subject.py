"""A method under check: its card, and the configurations in which its rules are tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from typing import Any

from pydantic.fields import FieldInfo

from alignzoo.contract.card import Card, Need, Options
from alignzoo.contract.loss import LossCard, Reads
from alignzoo.testing.options import candidates, choices, least, validated
from alignzoo.testing.outcomes import Violation
from alignzoo.testing.stages import built

_TRIES = 400
"""Combinations tried to find a valid set of required options."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """Valid options of a method, and the values they were made from."""

    values: dict[str, Any]
    options: Options

    def __str__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        return f"with {changed}" if changed else "at its defaults"


class Subject:
    """A method under check.

    Attributes:
        memo: results that several rules need.
    """

    def __init__(self, card: Card) -> None:
        self.card = card
        self.memo: dict[Any, Any] = {}

    @property
    def fields(self) -> dict[str, FieldInfo]:
        return self.card.options.model_fields

    def build(self, configuration: Configuration) -> Any:
        """A new method object."""
        return built(self.card, configuration.options)

    @property
    def reads(self) -> Reads:
        """What a loss reads; ``pairs`` for methods of other kinds."""
        return self.card.reads if isinstance(self.card, LossCard) else "pairs"

    def coupled(self, configuration: Configuration) -> bool:
        """Whether the method declares that its values depend on one another in this configuration."""
        return bool(getattr(self.card, "batch_coupled", False)) or configuration.options.couples()

    def needs(self, configuration: Configuration) -> frozenset[Need]:
        """What the method declares to read in this configuration."""
        return self.card.needs | configuration.options.needs()

    def configure(self, values: dict[str, Any]) -> Configuration | None:
        """The configuration with these values on top of the required ones; None where they are refused."""
        options = validated(self.card.options, {**self.default.values, **values})
        return Configuration({**self.default.values, **values}, options) if options is not None else None

    @cached_property
    def default(self) -> Configuration:
        """The defaults; for options without one, the first values found that are accepted together.

        Raises:
            Violation: there are none.
        """
        required = {name: candidates(field) for name, field in self.fields.items() if field.is_required()}
        for values in islice(product(*required.values()), _TRIES):
            named = dict(zip(required, values, strict=True))
            options = validated(self.card.options, named)
            if options is not None:
                return Configuration(named, options)
        raise Violation(
            expected="options that build from their defaults",
            found="no valid values" + (f" for {', '.join(required)}" if required else ""),
            remedy="give each option a default, or valid ones as Field(examples=[...])",
        )

    @cached_property
    def configurations(self) -> list[Configuration]:
        """The defaults, every value of an option with few values, and whole numbers at their least.

        A value that is refused alone is tried beside one other change.
        """
        found = [self.default]
        for name, field in self.fields.items():
            for value in [*choices(field), *least(field)]:
                if same(value, getattr(self.default.options, name)):
                    continue
                configuration = self.configure({name: value}) or next(self._beside(name, value), None)
                if configuration is not None:
                    found.append(configuration)
        return found

    def variations(self, name: str, *, most: int = 5) -> Iterator[tuple[Configuration, Configuration]]:
        """Pairs of configurations that differ in option ``name`` alone, at most so many per starting point; then, for
        options that are only valid together, pairs that differ in one other option as well."""
        for base in self._starting_points(name):
            given = getattr(base.options, name)
            changed = (
                self.configure({**base.values, name: value})
                for value in candidates(self.fields[name])
                if not same(value, given)
            )
            yield from ((base, other) for other in islice(filter(None, changed), most))
        for value in candidates(self.fields[name]):
            if not same(value, getattr(self.default.options, name)) and self.configure({name: value}) is None:
                yield from ((self.default, other) for other in islice(self._beside(name, value), most))

    def _starting_points(self, name: str) -> Iterator[Configuration]:
        """Configurations to change the option in: those of few-valued options, the shortest intervals first and those
        that set the option itself last; then other changes."""
        plain = sorted(self.configurations, key=lambda c: name in c.values and c is not self.default)
        short = [c for c in plain if any(least(self.fields[given]) == [value] for given, value in c.values.items())]
        yield from short
        yield from (c for c in plain if c not in short)
        for other, field in self.fields.items():
            if other != name and not choices(field):
                yield from filter(None, (self.configure({other: value}) for value in candidates(field)[:4]))

    def _beside(self, name: str, value: Any) -> Iterator[Configuration]:
        for other, field in self.fields.items():
            if other != name:
                pairs = (self.configure({name: value, other: companion}) for companion in candidates(field))
                yield from filter(None, pairs)


def same(a: Any, b: Any) -> bool:
    """Equal, and of one type: ``True`` is not ``1``, but ``1`` is ``1.0``."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)
