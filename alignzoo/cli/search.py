"""Which methods a user looks for: filters and words of ``alignzoo ls``, and what would match less strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from alignzoo.base.suggest import nearest
from alignzoo.cli.describe import addresses_of, experimental_text, is_verified, needs_of, parts_of
from alignzoo.cli.named import Entry
from alignzoo.contract.card import Need
from alignzoo.contract.loss import READS
from alignzoo.contract.needs import PROBLEMS
from alignzoo.errors import UsageError

UNPAIRED = ("responses", "chosen")
"""What losses of unpaired data read."""
BEGINNING = 4
"""Letters from which a word also finds longer ones that start with it."""
OTHER = "other"
"""The heading of methods without a family, where others of their kind have one."""
Test = Callable[[Entry], bool]


@dataclass(frozen=True)
class Filters:
    """What is asked of methods, each as it was typed and as a test of a method."""

    tests: dict[str, Test] = field(default_factory=dict)

    def matching(self, entries: Iterable[Entry]) -> list[Entry]:
        return [entry for entry in entries if all(test(entry) for test in self.tests.values())]

    def without(self, typed: str) -> Filters:
        """All but one."""
        return Filters({name: test for name, test in self.tests.items() if name != typed})

    def less_strictly(self, entries: Sequence[Entry]) -> str | None:
        """What would match with one filter less, in words; None if nothing would."""
        found = {typed: len(self.without(typed).matching(entries)) for typed in self.tests}
        counts = sorted(((count, typed) for typed, count in found.items() if count), key=lambda pair: pair[0])
        if not counts or len(self.tests) == 1:
            return None
        return "; ".join(f"without {typed}: {count} method{'s' * (count != 1)}" for count, typed in counts)


def filters(
    words: Sequence[str],
    *,
    needs: Sequence[str] = (),
    no_reference: bool = False,
    unpaired: bool = False,
    reads: str | None = None,
    problem: str | None = None,
    verified: bool = False,
    experimental: bool | None = None,
    family: str | None = None,
    families: Sequence[str] = (),
) -> Filters:
    """The filters of a command line.

    Raises:
        UsageError: a need, problem or family that there is not.
    """
    tests: dict[str, Test] = {}
    for need in needs:
        _check("--needs", need, get_args(Need))
        tests[f"--needs {need}"] = lambda entry, need=need: need in needs_of(*entry)  # type: ignore[misc]
    if no_reference:
        tests["--no-reference"] = lambda entry: "reference" not in needs_of(*entry)
    if unpaired:
        tests["--unpaired"] = lambda entry: bool(set(UNPAIRED) & reads_of(entry))
    if reads is not None:
        tests[f"--reads {reads}"] = lambda entry: reads in reads_of(entry)
    if problem is not None:
        _check("--for", problem, list(PROBLEMS))
        tests[f"--for {problem}"] = lambda entry: problem in addresses_of(*entry)
    if verified:
        tests["--verified"] = lambda entry: is_verified(*entry)
    if experimental is not None:
        typed = "--experimental" if experimental else "--no-experimental"
        tests[typed] = lambda entry: bool(experimental_text(*entry)) is experimental
    if family is not None:
        tests[f"--family {family}"] = _of_family(family, families)
    tests |= {f"'{word}'": _says(word) for word in words}
    return Filters(tests)


def _check(flag: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        near = nearest(value, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(known)}"
        raise UsageError(f"{flag} {value}: there is no such {'need' if flag == '--needs' else 'problem'}", hint=hint)


def reads_of(entry: Entry) -> frozenset[str]:
    """What a method takes: the unit of a loss, the units that a wrapper wraps; empty for other kinds. Of a composition,
    what all its parts take."""
    taken = [_taken(part) for part in parts_of(*entry) if part.kind in ("loss", "robust")]
    return frozenset(READS).intersection(*taken) if taken else frozenset()


def _taken(card: object) -> frozenset[str]:
    around = getattr(card, "around", None)
    return frozenset(around) if around is not None else frozenset({getattr(card, "reads", "pairs")})


def _of_family(family: str, families: Sequence[str]) -> Test:
    """Of the families that have all these words.

    Raises:
        UsageError: there is none.
    """
    sought = _words(family)
    chosen = [one for one in families if all(_is_among(word, _words(one)) for word in sought)]
    if not chosen:
        raise UsageError(f"there is no family {family!r}", hint=f"one of: {', '.join(families)}")
    return lambda entry: family_of(entry) in chosen


def family_of(entry: Entry) -> str:
    """The family of a method; of a composition without one, that of its part of the same kind."""
    _, method = entry
    parts = (part.family for part in parts_of(*entry) if part.kind == method.kind)
    return method.family or next(parts, "")


def text_of(entry: Entry) -> str:
    """All that words are looked for in: names, summary, paper, family, problems."""
    _, method = entry
    problems = [f"{problem} {PROBLEMS[problem]}" for problem in addresses_of(*entry)]
    paper = method.paper
    published = [] if paper is None else [paper.title, *paper.authors, paper.venue or "", paper.arxiv or ""]
    return " ".join([method.name, *method.aliases, method.summary, *published, family_of(entry), *problems])


def _says(word: str) -> Test:
    """Whether all parts of a word (``length-bias``) are in a method's text."""
    return lambda entry: all(_is_among(part, _words(text_of(entry))) for part in _words(word))


def says(text: str, words: Sequence[str]) -> bool:
    """Whether all these words are in a text."""
    return all(_is_among(part, _words(text)) for word in words for part in _words(word))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _is_among(word: str, words: Sequence[str]) -> bool:
    return any(word == one or (len(word) >= BEGINNING and one.startswith(word)) for one in words)
