"""Rules of selectors, tried on a few rows of every shape they read and a tiny float64 llama as the policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Card
from alignzoo.contract.selector import READABLE, Selection, SelectionContext, SelectorCard
from alignzoo.contract.shapes import SHAPES, Shape
from alignzoo.errors import AlignzooError, DataError, MethodError
from alignzoo.lazy import torch
from alignzoo.plan.plan import Method
from alignzoo.report import Reporter
from alignzoo.testing.common import every_option_matters
from alignzoo.testing.outcomes import Rule, Skipped, Violation
from alignzoo.testing.snapshot import Snapshot
from alignzoo.testing.subject import Configuration, Subject

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = 12
NOISY = frozenset({101, 104})
COLUMNS = {"safe": "safety", "scores": "scores", "groups": "groups"}
"""The fields of a context and the needs that they are for."""


def sample_rows(shape: Shape) -> Dataset:
    """Random tokenised rows of a shape, with every column that data may have; row numbers from 100. The last row is the
    first one but for a token."""
    from datasets import Dataset

    from alignzoo.testing.tiny import random_rows

    size = {"pairs": 2, "ranked": 3}.get(shape, 1)
    draw = torch.Generator().manual_seed(3)
    rows = random_rows([size] * ROWS, seed=9, first_id=100)
    first, last = rows[0], rows[-1]
    *others, changed = first["response_ids"]
    last |= {"prompt_ids": first["prompt_ids"], "response_ids": [*others, [*changed[:-2], 1, changed[-1]]]}
    for i, row in enumerate(rows):
        row["prompt_text"] = " ".join(map(str, row["prompt_ids"]))
        row["response_text"] = [" ".join(map(str, ids)) for ids in row["response_ids"]]
        row["prompt_key"] = f"p{i}"
        # Every combination of flags occurs.
        row["safe"] = [bool(i >> place & 1) for place in range(size)]
        row["score"] = torch.randn(size, generator=draw).tolist()
        row["group"] = f"g{i % 3}"
        if shape == "unpaired":
            row["label"] = 1 if i % 2 else -1
    return Dataset.from_list(rows)


def sample_context(card: Card, shape: Shape, *, seed: int = 0, **options: Any) -> SelectionContext:
    """What a selector with these options is given for the sample rows, without a model."""
    given = card.options.model_validate(options)
    return SelectorBench(seed).context(Subject(card), Configuration(options, given), shape)


class SelectorBench:
    """Selectors, asked about sample rows.

    Attributes:
        loaded: how often the policy was asked for.
        read: which optional fields of the context were read.
    """

    def __init__(self, seed: int = 0) -> None:
        from alignzoo.testing.tiny import tiny_model

        self.policy: Any = tiny_model()
        self.seed = seed
        self.loaded = 0
        self.read: set[str] = set()

    def select(self, subject: Subject, configuration: Configuration, shape: Shape) -> Selection:
        """What a new selector makes of the sample rows.

        Raises:
            AlignzooError: it refuses them.
        """
        from alignzoo.session.selecting import checked

        read = self.read

        class Watched(SelectionContext):
            def __getattribute__(self, name: str) -> Any:
                read.update({name} & set(COLUMNS))
                return super().__getattribute__(name)

        plain = self.context(subject, configuration, shape)
        context = Watched(**{name: object.__getattribute__(plain, name) for name in plain.__dataclass_fields__})
        selection = subject.build(configuration).select(context)
        checked(subject.card, selection)
        return selection

    def context(self, subject: Subject, configuration: Configuration, shape: Shape) -> SelectionContext:
        """What the selector is given for the sample rows."""
        from alignzoo.session.selecting import context_of

        method, rows = Method(subject.card, "", configuration.options), sample_rows(shape)
        return context_of(method, rows, shape, NOISY, self.seed, Reporter(), partial(self._model, shape))

    def _model(self, shape: Shape, rows: Dataset) -> Any:
        from accelerate import Accelerator

        from alignzoo.session.selecting import model_of

        self.loaded += 1
        return model_of(self.policy, rows, shape, 0, Accelerator(cpu=True), Reporter())


def _shapes(subject: Subject) -> Iterator[Shape]:
    assert isinstance(subject.card, SelectorCard)
    yield from (shape for shape in SHAPES if shape in subject.card.shapes)


def _outcome(subject: Subject, configuration: Configuration, shape: Shape, *, seed: int = 0) -> Selection | None:
    """The selection, from the memo; None where the selector refuses."""
    known: dict[Any, Selection | None] = subject.memo.setdefault(_outcome, {})
    key = repr(configuration.options), shape, seed
    if key not in known:
        try:
            known[key] = SelectorBench(seed).select(subject, configuration, shape)
        except MethodError:
            raise
        except AlignzooError as refusal:
            subject.memo[_outcome, "refusal"] = str(refusal)
            known[key] = None
    return known[key]


def working(subject: Subject) -> list[tuple[Configuration, Shape]]:
    """The configurations and shapes that the selector does not refuse.

    Raises:
        Skipped: it refuses all of them.
    """
    tried = [(configuration, shape) for configuration in subject.configurations for shape in _shapes(subject)]
    found = [one for one in tried if _outcome(subject, *one) is not None]
    if not found:
        raise Skipped(f"refused: {subject.memo.get((_outcome, 'refusal'), 'it reads no shape')}")
    return found


def _of_its_rows(subject: Subject) -> None:
    from alignzoo.data.selection import Selected, apply

    tried = [(configuration, shape) for configuration in subject.configurations for shape in _shapes(subject)]
    for configuration, shape in tried:
        selection = _outcome(subject, configuration, shape)
        if selection is None:
            continue
        try:
            apply(Selected(sample_rows(shape)), selection, name=subject.card.name, shape=shape)
        except DataError:  # no row is left, which a run refuses
            continue
        except AlignzooError as error:
            raise Violation(
                expected=f"a selection of the {ROWS} {shape} rows that were given",
                found=f"{error.message} {configuration}",
                remedy="return an alignzoo.interfaces.Selection with indices from 0; rows and flips name a row once",
            ) from error
    working(subject)


@dataclass(frozen=True)
class _Again:
    """A second selection, by a new object in another random state, and what it touched."""

    selection: Selection
    read: set[str]
    loaded: int
    changes: list[str]


def _again(subject: Subject, configuration: Configuration, shape: Shape) -> _Again:
    """A second selection, from the memo."""
    known: dict[Any, _Again] = subject.memo.setdefault(_again, {})
    key = repr(configuration.options), shape
    if key not in known:
        bench = SelectorBench()
        bench.policy.train()
        bench.policy.model.layers[0].requires_grad_(False)
        before = Snapshot(bench.policy)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1234)
            state = torch.get_rng_state()
            selection = bench.select(subject, configuration, shape)
            drawn = not torch.equal(state, torch.get_rng_state())
        changes = [*before.changes(bench.policy), *(["torch's random state"] if drawn else [])]
        known[key] = _Again(selection, bench.read, bench.loaded, changes)
    return known[key]


def _repeatable(subject: Subject) -> None:
    for configuration, shape in working(subject):
        expected = _outcome(subject, configuration, shape)
        assert expected is not None
        if _plain(_again(subject, configuration, shape).selection) != _plain(expected):
            raise Violation(
                expected="the same selection from a new object, whatever was drawn before",
                found=f"another {configuration}",
                remedy="draw with ctx.seed only: a resumed run asks again and must train on the same rows",
            )


def _no_dead_option(subject: Subject) -> None:
    shapes = sorted({shape for _, shape in working(subject)}, key=SHAPES.index)

    def outcome(configuration: Configuration) -> list[Any]:
        found = [_outcome(subject, configuration, shape) for shape in shapes]
        return [None if one is None else _plain(one) for one in found]

    every_option_matters(subject, lambda a, b: outcome(a) != outcome(b))


def _declared(subject: Subject) -> None:
    read, loaded, ordered = set[str](), 0, False
    declared = set[str]()
    for configuration, shape in working(subject):
        found = _again(subject, configuration, shape)
        ordered |= found.selection.keep_order
        needs = subject.needs(configuration)
        declared |= needs
        beyond = sorted(name for name in found.read if COLUMNS[name] not in needs)
        if beyond:
            raise Violation(
                expected=f"ctx.{beyond[0]} to be read only with the need {COLUMNS[beyond[0]]!r}",
                found=f"it read {configuration}",
                remedy="add it to the needs: otherwise the field is None, and data without the column is not refused",
            )
        read |= {COLUMNS[name] for name in found.read}
        loaded += found.loaded
    idle = sorted(declared - read)
    if idle:
        raise Violation(
            expected=f"the declared need {idle[0]!r} to be used",
            found="that ctx is never asked for it" if idle[0] in READABLE else "what no selector can have",
            remedy="take it out of the needs: the data would have to bring it",
        )
    for fact, happened in (("loads", loaded > 0), ("orders", ordered)):
        if getattr(subject.card, fact) and not happened:
            raise Violation(
                expected=f"a selector with {fact}=True to "
                + ("ask for ctx.model" if fact == "loads" else "keep the order of its rows"),
                found="that it never does",
                remedy=f"take {fact}=True off the card",
            )


def _policy_unchanged(subject: Subject) -> None:
    for configuration, shape in working(subject):
        changes = _again(subject, configuration, shape).changes
        if changes:
            raise Violation(
                expected="the policy and torch's random state as they were, bit for bit",
                found=f"{', '.join(changes)} {configuration}",
                remedy="train a copy, give the mode back in a `finally`, and draw inside torch.random.fork_rng()",
            )


def _plain(selection: Selection) -> Any:
    """A selection as plain values, to compare."""
    rows = None if selection.rows is None else [int(row) for row in selection.rows]
    every = replace(
        selection,
        rows=rows,
        flipped=sorted(map(int, selection.flipped)),
        prefixes=dict(sorted(selection.prefixes.items())),
    )
    return repr(
        (
            every.rows,
            every.flipped,
            every.prefixes,
            every.keep_order,
            every.reasons,
            every.notes,
            sorted(every.left_out),
            every.facts,
        )
    )


RULES = (
    Rule("selection", "a selection of the rows that were given, for every shape it reads", _of_its_rows, ground=True),
    Rule("repeatable", "the same selection from a new object: nothing is drawn but by ctx.seed", _repeatable),
    Rule("no-dead-option", "every option changes the selection, its facts, or a refusal", _no_dead_option),
    Rule("declared-needs", "columns, the policy and the order are used where declared, and only there", _declared),
    Rule("policy-unchanged", "the policy and torch's random state are left as they are", _policy_unchanged),
)
