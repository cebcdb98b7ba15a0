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
from alignzoo.errors import AlignzooError, ModelError
from alignzoo.geometry.plots import draw_probe, drawn_or_told
from alignzoo.geometry.projections import find_down_projections, out_of_reach
from alignzoo.geometry.subspace import FACTS_FILE as SELECTION_FACTS
from alignzoo.geometry.subspace import FILE as SELECTION_FILE
from alignzoo.geometry.subspace import Select, save_selection, select_neurons
from alignzoo.model.base import without_adapter
from alignzoo.model.weights import fingerprint
from alignzoo.plan.settings import Settings
from alignzoo.probe.pairs import PROBE_VALIDATION, check_probe_pairs
from alignzoo.probe.probe import FACTS_FILE, TENSORS_FILE, Pooling, Probe, fit_probe, hidden_features, layer_indices
from alignzoo.report import Reporter
from alignzoo.runs.folder import new_folder

if TYPE_CHECKING:
    from datasets import Dataset

_FILES = (FACTS_FILE, TENSORS_FILE, SELECTION_FACTS, SELECTION_FILE)

CHOSEN_IS_SAFE = "chosen/rejected"
OF_A_LAYER = ("layer", "held_out_auc", "held_out_accuracy", "held_out_ece", "held_out_brier")
PROBE_VERSION = 2  # part of the cache key: raise it when the same data would give another probe


def cached_probe(
    model: Any, train: Dataset, validation: Dataset, *, report: Reporter, weights: str | None = None
) -> Probe:
    """The probe of these weights and pairs: reused where it was trained before, else trained and kept."""
    weights = weights or fingerprint(model)
    data = {"probe_train": _digest(train), "probe_validation": _digest(validation)}
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


def probe_command(
    settings: Settings,
    *,
    out: str,
    max_pairs: int | None = None,
    layers: str = "last",
    pooling: Pooling = "mean",
    select: Select = "anti-toxic",
    share: float = 0.01,
    count: int | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """``alignzoo probe``: train a probe on ``settings.model`` and ``settings.data``, save it with the neurons that it
    selects and a plot; returns its facts, the selection's under ``selection`` and the plot's path under ``plot``.

    Args:
        select, share, count: as ``shapo-token`` would select MLP neurons with the probe; none where the model has no
            MLP down projections.

    Raises:
        UsageError: ``out`` exists and is not empty, or a layer or a number of neurons that the model does not have.
        AlignzooError: ``out`` cannot be written.
    """
    with new_folder(Path(out), reporter, _FILES) as folder:
        policy, probe = _probe_of(settings, max_pairs, layers, pooling, reporter)
        selection = _save_selection(folder, policy, probe, select, share, count, reporter)
        probe.save(folder)
    plot = folder / "probe.png"
    drawn = drawn_or_told(lambda: draw_probe(plot, probe.facts, selection), plot, reporter)
    return {"out": str(folder), **probe.facts, "selection": selection, "plot": str(plot) if drawn else None}


def _save_selection(
    folder: Path, policy: Any, probe: Probe, select: Select, share: float, count: int | None, reporter: Reporter
) -> dict[str, Any] | None:
    """What the probe selects, saved beside it; None for a model that has no neurons to select."""
    try:
        projections = find_down_projections(policy)
    except ModelError as error:
        reporter.warn(f"no neurons are selected: {error.message}")
        return None
    if unreached := out_of_reach(policy):
        reporter.warn(unreached)
    by_probe = select in ("anti-toxic", "toxic", "abs")
    selected = select_neurons(
        projections,
        select,
        share,
        count=count,
        direction=probe.direction if by_probe else None,
        seed=probe.facts["seed"],
    )
    facts = {"select": select, "share": share if count is None else None, "count": count}
    save_selection(folder, projections, selected, {**facts, "probe": probe.facts if by_probe else None})
    names = [projection.name for projection in projections]
    return {
        **facts,
        "neurons": sum(map(len, selected)),
        "of": sum(projection.inner for projection in projections),
        "neurons_by_layer": {name: len(index) for name, index in zip(names, selected, strict=True)},
    }


def _probe_of(
    settings: Settings, max_pairs: int | None, layers: str, pooling: Pooling, reporter: Reporter
) -> tuple[Any, Probe]:
    """The model of the settings, and a probe trained on it and the settings' data."""
    from alignzoo.data.parts import describe, prepare_pairs
    from alignzoo.data.splits import split_by_prompt
    from alignzoo.model.load import find_model, load_config, load_policy, load_tokenizer
    from alignzoo.model.positions import within_positions

    seed = settings.seed
    source = find_model(settings.model)
    settings = within_positions(settings, load_config(source, settings), reporter)
    prepared = prepare_pairs(settings, load_tokenizer(source, settings))
    describe(prepared, reporter)
    pairs = prepared.dataset
    if max_pairs is not None and max_pairs < len(pairs):
        pairs = pairs.shuffle(seed=seed).select(range(max_pairs))
    parts = split_by_prompt(pairs, {"train": 1 - PROBE_VALIDATION, "validation": PROBE_VALIDATION}, seed, "probe")
    policy = _on_accelerator(load_policy(source, settings))
    facts = {
        "model": settings.model,
        "model_weights": fingerprint(policy),
        "data": {name: _digest(part) for name, part in parts.items()},
        "source": settings.data,
        "seed": seed,
    }
    probe = train_probe(
        policy, parts["train"], parts["validation"], report=reporter, facts=facts, layers=layers, pooling=pooling
    )
    return policy, probe


def _on_accelerator(policy: Any) -> Any:
    """Moved to the machine's accelerator, where it has one."""
    return policy.to(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else policy


def _responses(part: Dataset, labelled: bool) -> tuple[list[list[int]], list[int]]:
    """Token sequences of prompt and response, and their labels: 0 safe, 1 unsafe."""
    sequences: list[list[int]] = []
    labels: list[int] = []
    for row in part:
        for side, default in (("chosen", 0), ("rejected", 1)):
            sequences.append([*row["prompt_ids"], *row[f"{side}_ids"]])
            labels.append(int(not row[f"{side}_safe"]) if labelled else default)
    return sequences, labels


def _digest(part: Dataset) -> str:
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
