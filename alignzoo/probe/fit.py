"""Train a probe on pairs, or take the one that was trained on the same weights and pairs before."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from alignzoo.base.cache import cache_folder
from alignzoo.base.files import scratch
from alignzoo.errors import AlignzooError
from alignzoo.model.base import without_adapter
from alignzoo.model.weights import fingerprint
from alignzoo.probe.pairs import check_probe_pairs
from alignzoo.probe.probe import Pooling, Probe, fit_probe, hidden_features, layer_indices
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from datasets import Dataset

CHOSEN_IS_SAFE = "chosen/rejected"
OF_A_LAYER = ("layer", "held_out_auc", "held_out_accuracy", "held_out_ece", "held_out_brier")
PROBE_VERSION = 2  # part of the cache key: raise it when the same data would give another probe


def cached_probe(
    model: Any, train: Dataset, validation: Dataset, *, report: Reporter, weights: str | None = None
) -> Probe:
    """The probe of these weights and pairs: reused where it was trained before, else trained and kept."""
    weights = weights or fingerprint(model)
    data = {"probe_train": part_digest(train), "probe_validation": part_digest(validation)}
    key = hashlib.sha256(json.dumps([PROBE_VERSION, weights, data]).encode()).hexdigest()[:32]
    folder = cache_folder("probes") / key
    hidden = model.config.get_text_config().hidden_size
    kept = _kept(folder, hidden, report)
    if kept is not None:
        return kept
    probe = train_probe(model, train, validation, report=report, facts={"model_weights": weights, "data": data})
    return _publish(probe, folder, hidden, report)


def _kept(folder: Path, hidden: int, report: Reporter) -> Probe | None:
    """The probe in ``folder``; a damaged one makes way for another."""
    if not folder.exists():
        return None
    try:
        probe = Probe.load(folder, hidden=hidden)
        _announce(probe, "reused from an earlier run on the same weights and pairs", report)
    except AlignzooError as error:
        report.warn(f"{error.message}; training another one")
        # Moved before it is deleted: no other run sees half of it, and none deletes what another has just published.
        with contextlib.suppress(OSError), scratch(folder.parent) as away:
            folder.rename(away / folder.name)
        return None
    return probe


def _publish(probe: Probe, folder: Path, hidden: int, report: Reporter) -> Probe:
    """Keep a probe for later runs, whole or not at all; where another run was faster, its probe is returned."""
    try:
        with scratch(folder.parent) as beside:
            whole = beside / folder.name
            probe.save(whole)
            whole.rename(folder)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(AlignzooError):
            return Probe.load(folder, hidden=hidden)
        report.warn(f"the probe is not kept for later runs: {error}; ALIGNZOO_CACHE names another folder for it")
    return probe


def train_probe(
    model: Any,
    train: Dataset,
    validation: Dataset,
    *,
    report: Reporter,
    facts: dict[str, Any],
    layers: str = "last",
    pooling: Pooling = "mean",
) -> Probe:
    """Fit a probe on the responses of ``train``; its figures are those on ``validation``, by other prompts.

    Of several layers the one with the highest AUC on ``validation`` is taken, so that its AUC is a little flattered;
    ``facts["layers"]`` has the figures of all.

    Args:
        layers, pooling: see :func:`~alignzoo.probe.probe.layer_indices` and ``hidden_features``.

    Raises:
        DataError: too few safe or unsafe responses in one of the parts.
        UsageError: a layer that the model does not have.
    """
    labelled = "chosen_safe" in train.column_names
    check_probe_pairs(train, validation, hint="give more data")
    model = without_adapter(model)
    indices = layer_indices(layers, int(model.config.get_text_config().num_hidden_layers))
    training = model.training
    model.eval()
    try:
        with report.progress(2 * (len(train) + len(validation)), "reading hidden states", unit="response") as bar:
            parts = []
            for part in (train, validation):
                sequences, labels = _responses(part, labelled)
                features = hidden_features(model, sequences, layers=indices, pooling=pooling, bar=bar)
                parts.append((features, torch.tensor(labels)))
    finally:
        model.train(training)
    facts = {**facts, "labels": "chosen_safe/rejected_safe" if labelled else CHOSEN_IS_SAFE, "pooling": pooling}
    (fitting, fit_labels), (judging, judge_labels) = parts
    probes = [
        fit_probe((fit, fit_labels), (judge, judge_labels), {**facts, "layer": layer})
        for layer, fit, judge in zip(indices, fitting, judging, strict=True)
    ]
    best = max(probes, key=lambda probe: (probe.facts["held_out_auc"], probe.facts["layer"]))
    if len(probes) > 1:
        best.facts["layers"] = [{name: probe.facts[name] for name in OF_A_LAYER} for probe in probes]
    _announce(best, "trained", report)
    return best


def _responses(part: Dataset, labelled: bool) -> tuple[list[list[int]], list[int]]:
    """Token sequences of prompt and response, and their labels: 0 safe, 1 unsafe."""
    sequences: list[list[int]] = []
    labels: list[int] = []
    for row in part:
        for side, default in (("chosen", 0), ("rejected", 1)):
            sequences.append([*row["prompt_ids"], *row[f"{side}_ids"]])
            labels.append(int(not row[f"{side}_safe"]) if labelled else default)
    return sequences, labels


def part_digest(part: Dataset) -> str:
    """Content hash of a part's tokens and labels."""
    names = ["prompt_ids", "chosen_ids", "rejected_ids", "chosen_safe", "rejected_safe"]
    columns = part.select_columns([name for name in names if name in part.column_names])
    digest = hashlib.sha256()
    for row in columns:
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def _announce(probe: Probe, how: str, report: Reporter) -> None:
    """Say where the probe comes from, what its labels are and how good it is."""
    facts = probe.facts
    if facts["labels"] == CHOSEN_IS_SAFE:
        report.note("safety probe: the data has no safety labels; chosen serves as safe, rejected as unsafe")
    report.note(
        f"safety probe: {how}; held-out AUC {facts['held_out_auc']:.3f}, accuracy {facts['held_out_accuracy']:.3f} "
        f"(majority {facts['held_out_majority']:.3f}) on {facts['held_out_responses']} responses"
    )
