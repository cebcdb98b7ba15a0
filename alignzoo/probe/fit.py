"""Train a probe on labelled responses, or reuse one trained on the same weights and data."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from alignzoo.base.cache import cache_folder
from alignzoo.base.files import scratch
from alignzoo.data.digests import rows_digest
from alignzoo.data.probe_rows import UNKNOWN, UNSAFE, check_probe_pairs, safety_labels
from alignzoo.distributed.sharding import parts_callable
from alignzoo.errors import AlignzooError
from alignzoo.model.base import without_adapter
from alignzoo.model.weights import fingerprint
from alignzoo.probe.probe import Pooling, Probe, fit_probe, hidden_features, layer_indices
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from datasets import Dataset

BY_FLAGS, BY_LABEL, BY_ORDER = "safe", "label", "order"
"""The source of the response labels: the fact ``labels``."""
_STAND_INS = {
    BY_LABEL: "desirable responses count as safe, undesirable ones as unsafe",
    BY_ORDER: "chosen (best) responses count as safe, rejected (worst) ones as unsafe",
}
OF_A_LAYER = ("layer", "held_out_auc", "held_out_accuracy", "held_out_ece", "held_out_brier")
PROBE_VERSION = 3  # part of the cache key: raise it when the same data would give a different probe


def cached_probe(
    model: Any,
    train: Dataset,
    validation: Dataset,
    *,
    report: Reporter,
    weights: str | None = None,
    first: Callable[[Callable[[], Probe | None]], Probe | None] = lambda work: work(),
) -> Probe:
    """The probe of these weights and rows: from the cache, or trained and cached.

    Args:
        first: gives all ranks that share a sharded model what the work of the first of them gives.
    """
    weights = weights or fingerprint(model)
    data = {"probe_train": part_digest(train), "probe_validation": part_digest(validation)}
    key = hashlib.sha256(json.dumps([PROBE_VERSION, weights, data]).encode()).hexdigest()[:32]
    folder = cache_folder("probes") / key
    hidden = model.config.get_text_config().hidden_size
    kept = first(lambda: _kept(folder, hidden, report))
    if kept is not None:
        return kept
    probe = train_probe(model, train, validation, report=report, facts={"model_weights": weights, "data": data})
    return first(lambda: _publish(probe, folder, hidden, report)) or probe


def _kept(folder: Path, hidden: int, report: Reporter) -> Probe | None:
    """The probe in ``folder``; a damaged one is reported and removed."""
    if not folder.exists():
        return None
    try:
        probe = Probe.load(folder, hidden=hidden)
        _announce(probe, "reused from an earlier run on the same weights and data", report)
    except AlignzooError as error:
        report.warn(f"{error.message}; training a new one")
        # Moved before deletion: no run sees half of it, or deletes one that another has just published.
        with contextlib.suppress(OSError), scratch(folder.parent) as away:
            folder.rename(away / folder.name)
        return None
    return probe


def _publish(probe: Probe, folder: Path, hidden: int, report: Reporter) -> Probe:
    """Cache a probe atomically; if another run was faster, its probe is returned."""
    try:
        with scratch(folder.parent) as beside:
            whole = beside / folder.name
            probe.save(whole)
            whole.rename(folder)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(AlignzooError):
            return Probe.load(folder, hidden=hidden)
        report.warn(f"cannot cache the probe: {error}; set ALIGNZOO_CACHE to a writable folder")
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
    """Fit a probe on the responses of ``train``; its figures are computed on ``validation``, with other prompts.

    Of several layers, the one with the highest AUC on ``validation`` is chosen, so its AUC is slightly optimistic;
    ``facts["layers"]`` has the figures of all.

    Args:
        layers, pooling: see :func:`~alignzoo.probe.probe.layer_indices` and ``hidden_features``.

    Raises:
        DataError: too few safe or unsafe responses in one of the parts.
        UsageError: a layer that the model does not have.
    """
    check_probe_pairs(train, validation, hint="use more data")
    policy, model = model, without_adapter(model)
    indices = layer_indices(layers, int(model.config.get_text_config().num_hidden_layers))
    training = model.training
    model.eval()
    try:
        given = [_responses(part) for part in (train, validation)]
        total = sum(map(len, given))
        with parts_callable(policy), report.progress(total, "reading hidden states", unit="response") as bar:
            parts = []
            for responses in given:
                sequences, labels = zip(*responses, strict=True)
                features = hidden_features(model, sequences, layers=indices, pooling=pooling, bar=bar)
                parts.append((features, torch.tensor(labels)))
    finally:
        model.train(training)
    facts = {**facts, "labels": _labelled_by(train), "pooling": pooling}
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


def _responses(part: Dataset) -> list[tuple[list[int], int]]:
    """Every response known to be safe (0) or unsafe (1): tokens of prompt + response, and the label."""
    rows = zip(part["prompt_ids"], part["response_ids"], strict=True)
    sequences = ([*prompt, *response] for prompt, responses in rows for response in responses)
    labelled = zip(sequences, safety_labels(part).tolist(), strict=True)
    return [(sequence, int(label == UNSAFE)) for sequence, label in labelled if label != UNKNOWN]


def _labelled_by(part: Dataset) -> str:
    """What :func:`~alignzoo.data.probe_rows.safety_labels` reads the labels from."""
    return next((name for name in (BY_FLAGS, BY_LABEL) if name in part.column_names), BY_ORDER)


def part_digest(part: Dataset) -> str:
    """Content hash of a part's tokens and labels."""
    names = ("prompt_ids", "response_ids", "safe", "label")
    return rows_digest(part.select_columns([name for name in names if name in part.column_names]))


def _announce(probe: Probe, how: str, report: Reporter) -> None:
    """Report the probe's origin, labels and quality."""
    facts = probe.facts
    if facts["labels"] != BY_FLAGS:
        report.note(f"safety probe: no safety labels in the data; {_STAND_INS[facts['labels']]}")
    report.note(
        f"safety probe: {how}; held-out AUC {facts['held_out_auc']:.3f}, accuracy {facts['held_out_accuracy']:.3f} "
        f"(majority class {facts['held_out_majority']:.3f}) on {facts['held_out_responses']} responses"
    )
