"""What a reader must know before believing a difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignzoo.comparison.groups import Group
from alignzoo.comparison.statistics import ALPHA, smallest_p
from alignzoo.records.run import RunRecord


def caveats(groups: Sequence[Group], baseline: str | None) -> list[str]:
    """Sentences about groups of one seed, missing seeds, and tests that can say little.

    Args:
        baseline: the label of the group to which differences are taken; None for the first of each block.
    """
    blocks: dict[str, list[Group]] = {}
    for group in groups:
        blocks.setdefault(group.block, []).append(group)
    found = [sentence for some in blocks.values() for sentence in _of_a_block(some, baseline)]
    return list(dict.fromkeys([*_alone(groups), *found]))


def _alone(groups: Sequence[Group]) -> Iterator[str]:
    """Groups of one seed."""
    alone = [group.name for group in groups if len(group.runs) == 1]
    if alone:
        which = "every group has" if len(alone) == len(groups) else f"{_listed(alone)}:"
        yield f"{which} one seed only, which proves nothing: no interval and no test"


def _of_a_block(groups: Sequence[Group], baseline: str | None) -> Iterator[str]:
    selectors = {(*run.methods["selector"], *_selector_options(run)) for run in map(_any_run, groups)}
    if len(selectors) > 1:
        yield "selectors differ, so groups trained on different rows or labels; --by selector compares within each"
    against = next((group for group in groups if group.label == baseline), groups[0] if baseline is None else None)
    if against is None:
        yield f"{groups[0].block} has no group {baseline!r}, so it has no differences"
        return
    yield from _missing_seeds(groups, against)
    pairs = [len(group.runs.keys() & against.runs.keys()) for group in groups if group is not against]
    most = max(pairs, default=0)
    if most > 1 and smallest_p(most) > ALPHA:
        yield f"with {most} seeds, the Wilcoxon and permutation tests cannot give less than p = {smallest_p(most):g}"


def _any_run(group: Group) -> RunRecord:
    return next(iter(group.runs.values()))


def _selector_options(run: RunRecord) -> list[str]:
    return [f"{word}={value}" for word, value in run.values.items() if word.startswith("selector.")]


def _missing_seeds(groups: Sequence[Group], against: Group) -> Iterator[str]:
    every = {seed for group in groups for seed in group.runs}
    for group in groups:
        missing = sorted(every - group.runs.keys())
        if not missing:
            continue
        lacks = f"{group.name} lacks seed{'s' if len(missing) > 1 else ''} {_listed(missing)}"
        common = sorted(group.runs.keys() & against.runs.keys())
        if group is against:
            yield f"{lacks}; as the baseline it is compared over the seeds that others share with it"
        elif common:
            yield f"{lacks}; its differences are paired over the common seeds {_listed(common)}"
        else:
            yield f"{lacks}; it shares no seed with the baseline, so it has no differences"


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names))
