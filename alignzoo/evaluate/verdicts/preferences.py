"""Two models' responses to the same prompts, compared by a preference judge in both orders.

Verdicts are kept in ``OUT/preferences/SUITE/JUDGE.jsonl``, one line per pair and order, as soon as they are known; a
pair is known by the content of both responses, so one file holds comparisons with several other models.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.shown import shown
from alignzoo.base.stored import value_digest
from alignzoo.contract.judge import Answered, Preference
from alignzoo.errors import DamagedError, DataError, MethodError
from alignzoo.evaluate.journal import Journal
from alignzoo.evaluate.responses import as_line
from alignzoo.evaluate.verdicts.judging import ReadyJudge
from alignzoo.evaluate.verdicts.win_rate import Compared
from alignzoo.plugin.guard import guarded
from alignzoo.report import Reporter

PREFERENCES = "preferences"
"""The folder of preferences inside an evaluation's."""
_WINNERS = ("first", "second", "tie", None)
Pair = tuple[Answered, Answered]


@dataclass(frozen=True)
class Matched:
    """Responses of A and B to the same prompts.

    Attributes:
        only_a, only_b: how many responses of one have no counterpart of the other.
    """

    pairs: list[Pair]
    only_a: int
    only_b: int


def matched(a: Sequence[Answered], b: Sequence[Answered]) -> Matched:
    """The responses to the same prompts, by id and request; by request alone where a file has no ids.

    Raises:
        DataError: the prompts are different ones.
    """
    with_ids = all(answer.id for answer in (*a, *b))
    requests = {answer.id: answer.request for answer in b}
    for answer in a if with_ids else ():
        if answer.request != requests.get(answer.id, answer.request):
            raise DataError(
                f"prompt {answer.id!r} has different requests in A ({shown(answer.request)}) and B "
                f"({shown(requests[answer.id])})",
                hint="compare responses to the same prompts",
            )
    ours, theirs = _by_prompt(a, with_ids), _by_prompt(b, with_ids)
    pairs = [(answer, theirs[key]) for key, answer in ours.items() if key in theirs]
    if not pairs:
        raise DataError(
            f"A ({len(a)} responses) and B ({len(b)}) have no prompt in common",
            hint="generate both on the same suite, with the same --limit and --seed",
        )
    return Matched(pairs, len(ours) - len(pairs), len(theirs) - len(pairs))


def with_references(a: Sequence[Answered]) -> Matched:
    """Each response with the reference answer of its own prompt as B.

    Raises:
        DataError: there is no reference.
    """
    pairs = [(answer, _reference(answer)) for answer in a if answer.reference]
    if not pairs:
        raise DataError("no prompt has a reference answer", hint="name the other model's responses instead")
    return Matched(pairs, len(a) - len(pairs), 0)


def compared(ready: ReadyJudge, pairs: Sequence[Pair], kept: Path | None, report: Reporter) -> list[Compared]:
    """The judge's verdicts on pairs, in both orders. Equal responses tie without being judged.

    Args:
        kept: the ``.jsonl`` file of its verdicts: those there are reused, new ones are appended.

    Raises:
        AlignzooError: the judge fails; what it had judged is kept.
        MethodError: it fails in another way, or gives something else than preferences.
    """
    shown_pairs = [order for a, b in pairs if a.response != b.response for order in ((a, b), (b, a))]
    keys = [_key(pair) for pair in shown_pairs]
    journal = None if kept is None else Journal(kept, ready.about)
    found = {} if journal is None else _kept(journal, ready, report)
    left = [i for i, key in enumerate(keys) if key not in found]
    with report.progress(len(keys), f"comparing ({ready.name})", unit="verdict", done=len(keys) - len(left)) as bar:
        for i, preference in _new(ready, [shown_pairs[i] for i in left], journal):
            found[keys[left[i]]] = preference
            bar.advance()
    return [_compared(a, b, found) for a, b in pairs]


def _new(ready: ReadyJudge, pairs: Sequence[Pair], journal: Journal | None) -> Iterator[tuple[int, Preference]]:
    """New verdicts with the place of their pair, each kept before it is given."""
    if not pairs:
        return
    if journal is None:
        yield from enumerate(_preferences(ready, pairs))
        return
    with journal.appending() as file:
        for i, preference in enumerate(_preferences(ready, pairs)):
            file.write({"id": pairs[i][0].id, "pair": _key(pairs[i]), **vars(preference)})
            yield i, preference


def _preferences(ready: ReadyJudge, pairs: Sequence[Pair]) -> Iterator[Preference]:
    """One preference per pair, in the order shown.

    Raises:
        MethodError: the judge fails, gives something else, or another number of them.
    """
    with guarded(f"{ready.said} failed"):
        given = iter(ready.judge.prefer([first for first, _ in pairs], [second for _, second in pairs]))
    for count in itertools.count():
        with guarded(f"{ready.said} failed after {count} of {len(pairs)} comparisons"):
            preference = next(given, None)
        if preference is None and count == len(pairs):
            return
        if preference is None or count == len(pairs):
            number = count if preference is None else f"more than {count}"
            raise MethodError(f"{ready.said} gave {number} preferences on {len(pairs)} pairs", hint="fix its plugin")
        if not isinstance(preference, Preference) or preference.winner not in _WINNERS:
            raise MethodError(f"{ready.said} gave {shown(preference)}, expected a Preference", hint="fix its plugin")
        yield preference


def _kept(journal: Journal, ready: ReadyJudge, report: Reporter) -> dict[str, Preference]:
    """The verdicts there, by pair. A file of the same judge over other weights is replaced."""
    differing = journal.differences()
    if differing:
        report.warn(f"{journal.path}: {ready.said} has changed ({'; '.join(differing)}), so it judges again")
        journal.remove()
    return {str(line.get("pair")): _preference(line, journal.path) for line in journal.begin()}


def _preference(line: Mapping[str, Any], path: Path) -> Preference:
    winner, raw = line.get("winner"), line.get("raw", "")
    if winner not in _WINNERS or not isinstance(raw, str):
        raise DamagedError(path, f"the verdict on {line.get('id')!r} is none", hint="delete it to judge again")
    return Preference(winner, raw)


def _compared(a: Answered, b: Answered, found: Mapping[str, Preference]) -> Compared:
    lengths = (len(a.response), len(b.response))
    if a.response == b.response:
        return Compared("tie", "tie", *lengths, a.category)
    return Compared(found[_key((a, b))].winner, found[_key((b, a))].winner, *lengths, a.category)


def _key(pair: Pair) -> str:
    return value_digest([as_line(answer) for answer in pair])


def _by_prompt(answers: Sequence[Answered], with_ids: bool) -> dict[tuple[str, str, int], Answered]:
    """Responses by id and request, and by how often the same came before."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for answer in answers:
        key = (answer.id if with_ids else "", answer.request)
        found[(key[0], key[1], seen[key])] = answer
        seen[key] += 1
    return found


def _reference(answer: Answered) -> Answered:
    fields = {**vars(answer), "response": answer.reference}
    return Answered(**fields)
