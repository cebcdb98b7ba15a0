"""Train a probe on labelled responses, or reuse the one that was trained on the same weights and data before."""

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
from alignzoo.data.digests import rows_digest
from alignzoo.errors import AlignzooError, ModelError
from alignzoo.geometry.plots import draw_probe, drawn_or_told
from alignzoo.geometry.projections import find_down_projections, out_of_reach
from alignzoo.geometry.subspace import FACTS_FILE as SELECTION_FACTS
from alignzoo.geometry.subspace import FILE as SELECTION_FILE
from alignzoo.geometry.subspace import Select, save_selection, select_neurons
from alignzoo.model.base import without_adapter
from alignzoo.model.weights import fingerprint
from alignzoo.plan.settings import Settings
from alignzoo.probe.pairs import PROBE_VALIDATION, UNKNOWN, UNSAFE, check_probe_pairs, safety_labels
from alignzoo.probe.probe import FACTS_FILE, TENSORS_FILE, Pooling, Probe, fit_probe, hidden_features, layer_indices
from alignzoo.report import Reporter
from alignzoo.runs.folder import new_folder

if TYPE_CHECKING:
    from datasets import Dataset

_FILES = (FACTS_FILE, TENSORS_FILE, SELECTION_FACTS, SELECTION_FILE)

BY_FLAGS, BY_LABEL, BY_ORDER = "safe", "label", "order"
"""Where the labels of responses come from: the fact ``labels``."""
_STAND_INS = {
    BY_LABEL: "desirable responses serve as safe, undesirable ones as unsafe",
    BY_ORDER: "chosen (best) responses serve as safe, rejected (worst) ones as unsafe",
}
OF_A_LAYER = ("layer", "held_out_auc", "held_out_accuracy", "held_out_ece", "held_out_brier")
PROBE_VERSION = 3  # part of the cache key: raise it when the same data would give another probe


def cached_probe(
    model: Any, train: Dataset, validation: Dataset, *, report: Reporter, weights: str | None = None
) -> Probe:
    """The probe of these weights and rows: reused where it was trained before, else trained and kept."""
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
    """The probe in ``folder``; a damaged one is reported and removed."""
    if not folder.exists():
        return None
    try:
        probe = Probe.load(folder, hidden=hidden)
        _announce(probe, "reused from an earlier run on the same weights and data", report)
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
    check_probe_pairs(train, validation, hint="give more data")
    model = without_adapter(model)
    indices = layer_indices(layers, int(model.config.get_text_config().num_hidden_layers))
    training = model.training
    model.eval()
    try:
        given = [_responses(part) for part in (train, validation)]
        with report.progress(sum(map(len, given)), "reading hidden states", unit="response") as bar:
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
        "data": {name: part_digest(part) for name, part in parts.items()},
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


def _responses(part: Dataset) -> list[tuple[list[int], int]]:
    """Every response that is known to be safe (0) or unsafe (1): its tokens behind its prompt's, and that label."""
    rows = zip(part["prompt_ids"], part["response_ids"], strict=True)
    sequences = ([*prompt, *response] for prompt, responses in rows for response in responses)
    labelled = zip(sequences, safety_labels(part).tolist(), strict=True)
    return [(sequence, int(label == UNSAFE)) for sequence, label in labelled if label != UNKNOWN]


def _labelled_by(part: Dataset) -> str:
    """What :func:`~alignzoo.probe.pairs.safety_labels` reads the labels from."""
    return next((name for name in (BY_FLAGS, BY_LABEL) if name in part.column_names), BY_ORDER)


def part_digest(part: Dataset) -> str:
    """Content hash of a part's tokens and labels."""
    names = ("prompt_ids", "response_ids", "safe", "label")
    return rows_digest(part.select_columns([name for name in names if name in part.column_names]))


def _announce(probe: Probe, how: str, report: Reporter) -> None:
    """Say where the probe comes from, what its labels are and how good it is."""
    facts = probe.facts
    if facts["labels"] != BY_FLAGS:
        report.note(f"safety probe: the data has no safety labels; {_STAND_INS[facts['labels']]}")
    report.note(
        f"safety probe: {how}; held-out AUC {facts['held_out_auc']:.3f}, accuracy {facts['held_out_accuracy']:.3f} "
        f"(majority {facts['held_out_majority']:.3f}) on {facts['held_out_responses']} responses"
    )
