"""What docs/world2.md states of world 2: how much a bag of words knows, and the power of a sweep.

``python benchmarks/world2.py words`` and ``python benchmarks/world2.py power SWEEP``; both print Markdown.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import alignzoo_world2
from alignzoo_world2.generate import EVALUATION_SPLITS, TRAIN_PAIRS, prompts

from alignzoo.records.sweep import read_sweep


def words() -> None:
    """Accuracy of a logistic regression on word counts, trained on the training prompts, by world and split."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    splits = ("validation", *EVALUATION_SPLITS)
    print_table(["world", "train", *splits], [])
    for world in range(alignzoo_world2.WORLDS):
        counts = CountVectorizer()
        model = LogisticRegression(max_iter=1000)
        train = prompts("train", TRAIN_PAIRS, world=world)
        model.fit(counts.fit_transform([prompt.text for prompt in train]), [prompt.harmful for prompt in train])
        row = [str(world)]
        for asked in (train, *(prompts(split, world=world) for split in splits)):
            features = counts.transform([prompt.text for prompt in asked])
            row.append(f"{model.score(features, [prompt.harmful for prompt in asked]):.2f}")
        print_row(row)


def power(folder: Path) -> None:
    """What every point of a sweep gives in world 2: each figure's mean and spread over seeds, and what they detect."""
    points: dict[str, list[Mapping[str, float]]] = {}
    for cell, run in read_sweep(folder).finished():
        if run.result is not None:
            points.setdefault(cell.label, []).append(run.result.after)
    for label, results in points.items():
        print(f"\n**{label}** ({len(results)} seeds)\n")
        print_table(["figure", "mean", "standard deviation", "detectable difference"], [])
        for name in results[0]:
            if name.startswith("world2/"):
                values = [result[name] for result in results]
                spread = statistics.stdev(values) if len(values) > 1 else math.nan
                row = (statistics.mean(values), spread, detectable(spread, len(values)))
                shown = ("–" if math.isnan(value) else f"{value:.3f}" for value in row)
                print_row([name.removeprefix("world2/"), *shown])


def detectable(spread: float, seeds: int) -> float:
    """The difference that a paired t-test over ``seeds`` detects at 80 % power (level .05, two-sided).

    The differences of pairs are given the spread of two independent runs, sqrt(2) times that of one: the worst case of
    pairing that removes nothing.
    """
    from statsmodels.stats.power import TTestPower

    if not spread > 0:
        return math.nan
    return float(TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)) * spread * 2**0.5


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    print_row(columns)
    print_row(["---"] * len(columns))
    for row in rows:
        print_row(row)


def print_row(cells: Sequence[str]) -> None:
    """A row of a Markdown table, as soon as it is known."""
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("words")
    commands.add_parser("power").add_argument("sweep", type=Path)
    options = parser.parse_args()
    if options.command == "words":
        words()
    else:
        power(options.sweep)


if __name__ == "__main__":
    main()
