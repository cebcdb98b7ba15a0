"""The distribution of a run's soft labels: how many are confident, and how many contradict the data."""

from __future__ import annotations

from pathlib import Path

import torch

from alignzoo.base.files import write_json
from alignzoo.report import Reporter

BINS = 10
NEARLY_BINARY = 0.9
"""Share of labels below 0.1 or above 0.9 from which on they say hardly more than hard ones."""
SOFT_LABELS_FILE = "soft_labels.json"


def note_soft_labels(labels: torch.Tensor, folder: Path | None, report: Reporter) -> None:
    """Show the histogram of the training pairs' soft labels ``(N,)``; with ``folder``, write it there as well.

    Warns where most labels contradict the data's, and where hardly any is soft.
    """
    counts = torch.histc(labels.double(), bins=BINS, min=0.0, max=1.0).long().tolist()
    edges = [i / BINS for i in range(BINS + 1)]
    disagrees = float((labels < 0.5).double().mean())
    facts = {
        "pairs": len(labels),
        "edges": edges,
        "counts": counts,
        "mean": float(labels.double().mean()),
        "disagrees": disagrees,
    }
    rows = [
        (f"{low:.1f} to {high:.1f}", str(count), f"{count / len(labels):.1%}")
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    report.table("soft labels of the training pairs", ("p", "pairs", "share"), rows)
    report.note(f"soft labels: mean {facts['mean']:.3f}; {disagrees:.1%} of the pairs are below 0.5")
    if disagrees > 0.5:
        report.warn(
            f"the reward contradicts {disagrees:.1%} of the data's labels, and these pairs train with the "
            "opposite label; check the reward and its sign"
        )
    if ((labels < 0.1) | (labels > 0.9)).double().mean() >= NEARLY_BINARY:
        report.warn("soft labels are nearly binary; if that is unintended, raise the wrapper's temperature")
    if folder is not None:
        write_json(folder / SOFT_LABELS_FILE, facts)
