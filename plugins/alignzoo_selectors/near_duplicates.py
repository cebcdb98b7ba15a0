"""Drops near-duplicates: of rows whose texts are nearly the same, the first stays.

    J(A, B) = |A ∩ B| / |A ∪ B| ≥ similarity   (shingles: all runs of ``words`` words of a row's text)

Rows are compared where one of the bands of their MinHash signatures agrees (Broder, 1997; Lee et al., "Deduplicating
Training Data Makes Language Models Better"), and every candidate pair is then checked exactly. Rows that resemble one
another form a cluster, also through others; the row of the lowest number in the data stays. ``by=prompts`` compares
prompts alone and so leaves about one row per prompt; beginnings and ends that all prompts share, such as a chat
template's, do not count. Shorter texts than a run of words are one shingle.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.lazy import np
from alignzoo.plugin import Options, Paper, SelectorCard, Verified
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from numpy import ndarray

BANDS, WIDTH = 32, 4
"""A pair of similarity s becomes a candidate with probability 1 − (1 − s^WIDTH)^BANDS: 0.87 at 0.5, 1 − 5e-8 at 0.8."""
NEIGHBOURS = 32
"""Rows of a bucket that each of its rows is compared with."""
PRIME = (1 << 31) - 1
WORD = re.compile(r"\w+")


class NearDuplicatesOptions(Options):
    """What is compared, and how alike is too alike."""

    similarity: float = Field(
        0.8, ge=0.5, le=1, description="Jaccard similarity of shingles from which rows are duplicates", examples=[0.5]
    )
    by: Literal["rows", "prompts"] = Field("rows", description="compare prompts with their responses, or prompts alone")
    words: int = Field(3, ge=1, description="words in a shingle", examples=[1, 2])


class NearDuplicates(Selector):
    """Keeps the first row of each cluster of near-duplicates."""

    options: NearDuplicatesOptions

    def select(self, ctx: SelectionContext) -> Selection:
        texts = [re.sub(r"\s+", " ", text) for text in without_common_ends(ctx.prompts())]
        if self.options.by == "rows":
            # Sorted, so that a pair and the same pair under the opposite label are duplicates.
            texts = [" \n ".join([text, *sorted(some)]) for text, some in zip(texts, ctx.responses(), strict=True)]
        shingles = [shingles_of(text, self.options.words) for text in texts]
        first = clusters(shingles, self.options.similarity, ctx.row_ids.tolist(), ctx.report)
        kept = [row for row, leader in enumerate(first) if leader == row]
        dropped = {row: leader for row, leader in enumerate(first) if leader != row}
        sizes = Counter(first).values()
        facts = {"clusters": float(sum(size > 1 for size in sizes)), "largest": float(max(sizes))}
        facts["shingles_per_row"] = float(np.mean([len(some) for some in shingles]))
        return Selection(
            kept,
            reasons=dict.fromkeys(dropped, "near-duplicates"),
            notes={row: f"like row {ctx.row_ids[leader]}" for row, leader in dropped.items()},
            facts=facts,
        )


def without_common_ends(texts: Sequence[str]) -> list[str]:
    """The texts without the beginning and the end that all of them share; as they are if nothing else is left."""
    begin = _common(texts)
    end = _common([text[begin:][::-1] for text in texts])
    return [text[begin : len(text) - end] or text for text in texts]


def _common(texts: Sequence[str]) -> int:
    """Characters at the beginning that all texts share: those that the first and the last in order share."""
    first, last = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def shingles_of(text: str, words: int) -> ndarray:
    """Hashes of all runs of words, ascending, uint32; of the whole text if it has fewer words."""
    from xxhash import xxh32_intdigest

    found = WORD.findall(text.casefold()) or [text]
    runs = range(max(1, len(found) - words + 1))
    hashes: ndarray = np.unique([xxh32_intdigest(" ".join(found[i : i + words]).encode()) for i in runs]).astype(
        np.uint32
    )
    return hashes


def jaccard(a: ndarray, b: ndarray) -> float:
    """|A ∩ B| / |A ∪ B|."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def clusters(shingles: Sequence[ndarray], similarity: float, numbers: Sequence[int], report: Reporter) -> list[int]:
    """For each row, the row of the lowest number in its cluster."""
    leader = list(range(len(shingles)))

    def find(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    signatures = signatures_of(shingles)
    with report.progress(BANDS, "looking for near-duplicates", unit="band") as bar:
        for band in range(BANDS):
            for a, b in candidates(signatures[:, band]):
                first, second = sorted((find(a), find(b)), key=lambda row: numbers[row])
                if first != second and jaccard(shingles[a], shingles[b]) >= similarity:
                    leader[second] = first
            bar.advance()
    return [find(row) for row in range(len(leader))]


def signatures_of(shingles: Sequence[ndarray]) -> ndarray:
    """MinHash signatures, ``(N, BANDS, WIDTH)`` uint32."""
    draw = np.random.default_rng(0)  # of the hash functions; what they miss is rare, and every candidate is checked
    factors, shifts = draw.integers(1, PRIME, (2, BANDS * WIDTH, 1), dtype=np.uint64)
    found = np.empty((len(shingles), BANDS * WIDTH), np.uint32)
    for row, hashes in enumerate(shingles):
        found[row] = ((factors * (hashes % np.uint64(PRIME)) + shifts) % PRIME).min(axis=1)
    return found.reshape(-1, BANDS, WIDTH)


def candidates(band: ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of rows whose bands ``(N, WIDTH)`` are equal; of many equal ones, each with the last few before it."""
    order = np.lexsort(band.T)
    same = (band[order[1:]] == band[order[:-1]]).all(axis=1)
    begin = 0
    for place, equal in enumerate(same.tolist(), start=1):
        begin = begin if equal else place
        for other in range(max(begin, place - NEIGHBOURS), place):
            yield int(order[other]), int(order[place])


CARD = SelectorCard(
    name="near-duplicates",
    target=f"{__name__}:NearDuplicates",
    options=NearDuplicatesOptions,
    summary="Drops rows whose texts are nearly those of another",
    family="duplicates",
    formula="keep one row of each cluster of J(A, B) = |A ∩ B| / |A ∪ B| ≥ similarity",
    paper=Paper(
        title="Deduplicating Training Data Makes Language Models Better",
        arxiv="2107.06499",
        authors=("Lee, Katherine", "others"),
        venue="ACL 2022",
    ),
    verified=(
        Verified(against="all pairs compared one by one", test="test_near_duplicates_are_those_of_all_pairs_compared"),
    ),
)
