"""A linear safety probe: the direction in hidden space that separates safe from unsafe responses.

A two-class linear head (0 safe, 1 unsafe) on pooled hidden states of the frozen model, those of the last layer averaged
over prompt and response unless asked otherwise, fitted by L2-regularised logistic regression. Its direction ``v = W[1]
− W[0]`` points from safe to unsafe. Prompts never cross from training to validation; strength of the regularisation is
chosen by validation AUC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from alignzoo.base.files import whole, write_json
from alignzoo.base.stored import file_digest, read_sealed, sealed
from alignzoo.data.collate import padded_texts
from alignzoo.distributed.shards import computes_on
from alignzoo.errors import AlignzooError, DamagedError, DataError, ModelError, UsageError
from alignzoo.report import Progress

TENSORS_FILE, FACTS_FILE = "probe.safetensors", "probe.json"
Pooling = Literal["mean", "last", "max"]
L2_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Probe:
    """A trained probe.

    Attributes:
        weight: ``(2, hidden)`` fp32, rows safe and unsafe, on raw (not standardised) features.
        bias: ``(2,)`` fp32.
        facts: training data and quality, JSON-able.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    facts: dict[str, Any]

    @property
    def direction(self) -> torch.Tensor:
        """``(hidden,)``, from safe to unsafe."""
        return self.weight[1] - self.weight[0]

    def save(self, folder: Path) -> None:
        """Write ``probe.safetensors`` and ``probe.json``, which contains the digest of both."""
        folder.mkdir(exist_ok=True)
        with whole(folder / TENSORS_FILE) as path:
            save_file({"weight": self.weight, "bias": self.bias}, path)
        write_json(folder / FACTS_FILE, sealed({**self.facts, TENSORS_FILE: file_digest(folder / TENSORS_FILE)}))

    @classmethod
    def load(cls, folder: Path, *, hidden: int) -> Probe:
        """Read a saved probe.

        Raises:
            AlignzooError: there is none, it is corrupt, or it has another hidden size.
        """
        again = "alignzoo probe --model MODEL --data DATA --out DIR"
        for name in (TENSORS_FILE, FACTS_FILE):
            if not (folder / name).is_file():
                raise AlignzooError(f"no probe in {folder}: {name} is missing", hint=f"train one: {again}")
        try:
            facts = read_sealed(folder / FACTS_FILE)
            if facts.pop(TENSORS_FILE, None) != file_digest(folder / TENSORS_FILE):
                raise DamagedError(folder / TENSORS_FILE, "its content has changed since it was written")
            tensors = load_file(folder / TENSORS_FILE)
            probe = cls(tensors["weight"], tensors["bias"], facts)
        except DamagedError as error:
            raise DamagedError(error.path, error.reason, hint=f"retrain the probe: {again}") from error
        except (OSError, SafetensorError, KeyError) as error:
            raise DamagedError(folder / TENSORS_FILE, str(error), hint=f"retrain the probe: {again}") from error
        if probe.weight.shape[1] != hidden:
            raise ModelError(
                f"the probe in {folder} has hidden size {probe.weight.shape[1]}, but the model has {hidden}",
                hint=f"train a probe on this model: {again}",
            )
        return probe


def layer_indices(words: str, count: int) -> list[int]:
    """Parses hidden layers: ``last``, ``all`` (1 to ``count``), or comma-separated indices.

    0 is the embeddings, ``count`` the last layer (after its norm, as the head sees it); negative ones count from it.

    Raises:
        UsageError: not parseable, or an index that the model does not have.
    """
    if words in ("last", "all"):
        return [count] if words == "last" else list(range(1, count + 1))
    try:
        given = [int(word) for word in words.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--layers {words!r} is neither last, all, nor indices", hint="for example --layers 4,8,-1"
        ) from error
    outside = [index for index in given if not -count - 1 <= index <= count]
    if outside:
        raise UsageError(
            f"--layers: the model has no hidden layer {outside[0]}",
            hint=f"it has layers 1 to {count}, and 0 for the embeddings",
        )
    return sorted({index if index >= 0 else count + 1 + index for index in given})


@torch.no_grad()
def hidden_features(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    layers: Sequence[int],
    pooling: Pooling,
    tokens_per_batch: int = 4096,
    bar: Progress,
) -> list[torch.Tensor]:
    """For each layer ``(N, hidden)`` fp32 on the CPU: the hidden states of each sequence, pooled over tokens.

    ``model`` is a causal LM; its trunk runs without the LM head and in the model's current mode.

    Args:
        layers: as :func:`layer_indices` gives them.
        pooling: ``mean`` over tokens, the ``last`` token's, or the ``max`` over tokens, dimension by dimension.
    """
    trunk = getattr(model, model.base_model_prefix)
    device, count = computes_on(next(model.parameters())), int(model.config.get_text_config().num_hidden_layers)
    inner = any(layer != count for layer in layers)
    features: list[dict[int, torch.Tensor]] = [{} for _ in sequences]
    for chosen, ids, mask in padded_texts(sequences, tokens_per_batch):
        words = {"output_hidden_states": True} if inner else {}
        seen = trunk(input_ids=ids.to(device), attention_mask=mask.to(device), **words)
        for layer in layers:
            states = seen.last_hidden_state if layer == count else seen.hidden_states[layer]
            pooled = _pool(states.float().cpu(), mask, pooling)
            for row, i in enumerate(chosen):
                features[i][layer] = pooled[row]
        for _ in chosen:
            bar.advance()
    return [torch.stack([feature[layer] for feature in features]) for layer in layers]


def _pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """``(B, hidden)`` from states ``(B, T, hidden)`` and a right-padded mask ``(B, T)``."""
    if pooling == "last":
        return states[torch.arange(len(states)), mask.sum(1) - 1]
    if pooling == "max":
        return states.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def fit_probe(
    train: tuple[torch.Tensor, torch.Tensor], validation: tuple[torch.Tensor, torch.Tensor], facts: dict[str, Any]
) -> Probe:
    """Fit on ``(features (N, hidden), labels (N,) 0 safe / 1 unsafe)``; report AUC and accuracy on ``validation``.

    Raises:
        DataError: a part lacks one of the two classes.
    """
    for name, (_, labels) in (("training", train), ("validation", validation)):
        if len(labels) == 0 or len(labels.unique()) < 2:
            raise DataError(
                f"the probe's {name} part has {int((labels == 0).sum())} safe and {int((labels == 1).sum())} unsafe "
                "responses; it needs both",
                hint="use more data, or raise --probe.share",
            )
    features, labels = train[0].double(), train[1].double()
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-8)
    fits = []
    for strength in L2_GRID:
        weight, bias = _logistic_regression((features - mean) / scale, labels, strength)
        raw = weight / scale
        fits.append((raw, bias - raw @ mean, strength))
    scored = [(_auc(validation[0].double() @ w + b, validation[1]), w, b, s) for w, b, s in fits]
    auc, weight, bias, strength = max(scored, key=lambda fit: (fit[0], fit[3]))
    logits = validation[0].double() @ weight + bias
    majority = float(validation[1].double().mean())
    calibrated = calibration(logits.sigmoid(), validation[1])
    facts = {
        **facts,
        "held_out_auc": round(auc, 6),
        "held_out_accuracy": round(float(((logits > 0) == (validation[1] == 1)).double().mean()), 6),
        "held_out_majority": round(max(majority, 1 - majority), 6),
        "held_out_ece": round(calibrated.ece, 6),
        "held_out_brier": round(calibrated.brier, 6),
        "held_out_calibration": calibrated.curve,
        "train_responses": len(labels),
        "held_out_responses": len(validation[1]),
        "l2": strength,
    }
    half = (weight / 2).float()
    shift = (bias / 2).float()
    return Probe(torch.stack([-half, half]), torch.stack([-shift, shift]), facts)


@dataclass(frozen=True)
class Calibration:
    """Calibration of predicted probabilities.

    Attributes:
        ece: expected calibration error: |mean stated − share observed| of a bin, averaged with the bins' counts.
        brier: mean squared difference of stated probability and label.
        curve: the bins that are not empty: ``count``, ``stated`` (mean probability) and ``observed`` (share unsafe).
    """

    ece: float
    brier: float
    curve: list[dict[str, float]]


def calibration(probabilities: torch.Tensor, labels: torch.Tensor, *, bins: int = 10) -> Calibration:
    """From probabilities ``(N,)`` that the label ``(N,)`` is 1, in ``bins`` of equal width."""
    p, y = probabilities.double(), labels.double()
    places = (p * bins).long().clamp(max=bins - 1)
    curve = []
    for place in places.unique().tolist():
        inside = places == place
        stated, observed = float(p[inside].mean()), float(y[inside].mean())
        curve.append({"count": int(inside.sum()), "stated": round(stated, 6), "observed": round(observed, 6)})
    ece = sum(b["count"] * abs(b["stated"] - b["observed"]) for b in curve) / len(p)
    return Calibration(ece, float((p - y).square().mean()), curve)


def _logistic_regression(features: torch.Tensor, labels: torch.Tensor, l2: float) -> tuple[torch.Tensor, torch.Tensor]:
    """``(hidden,)`` weights and ``()`` bias minimising the mean logistic loss plus ``l2/2·‖w‖²``, in float64."""
    weight = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=200, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(features @ weight + bias, labels) + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()


def _auc(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Probability that an unsafe response scores higher than a safe one, ties counted half."""
    unsafe, safe = scores[labels == 1], scores[labels == 0].sort().values
    below = torch.searchsorted(safe, unsafe, side="left")
    upto = torch.searchsorted(safe, unsafe, side="right")
    return float((below + upto).double().sum() / (2 * len(unsafe) * len(safe)))
