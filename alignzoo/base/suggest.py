"""What an unknown name was probably meant to be, including the option names of other trainers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 3
"""Names in a suggestion."""
MIGRATION = {
    # TRL: DPOConfig and CPOConfig, of this release and of older ones
    "sigmoid": "dpo",
    "loss-type": "loss",
    "label-smoothing": "robust cdpo",
    "loss-weights": "loss",
    "use-weighting": "robust wpo",
    "ld-alpha": "aggregation ld",
    "sync-ref-model": "geometry tr-dpo",
    "rpo-alpha": "recipe rpo",
    "cpo-alpha": "recipe cpo-simpo",
    "beta": "loss.beta",
    "learning-rate": "lr",
    "per-device-train-batch-size": "micro-batch-size",
    "num-train-epochs": "epochs",
    "lr-scheduler-type": "schedule",
    "optim": "optimizer",
    "bf16": "precision bf16",
    "fsdp": "parallel fsdp2",
    "gradient-checkpointing": "activation-checkpointing",
    "disable-dropout": "no-dropout",
    "eval-strategy": "eval-every",
    "eval-steps": "eval-every",
    "save-steps": "save-every",
    "save-total-limit": "keep-checkpoints",
    "report-to": "track",
    "output-dir": "out",
    "resume-from-checkpoint": "resume",
    "precompute-ref-log-probs": "reference-cache",
    "dataset-num-proc": "data.workers",
    "padding-free": "packing",
    "max-completion-length": "max-length",
    "simpo-gamma": "loss.gamma_beta_ratio",
    # TRL: its scripts
    "model-name-or-path": "model",
    "dataset-name": "data",
    "dataset-train-split": "data.split",
    "dataset-test-split": "eval-data.split",
    "use-peft": "lora.r",
    "load-in-4bit": "quantize 4bit",
    # HALOs
    "name-or-path": "model",
    "load-from": "model",
    "train-datasets": "data",
    "test-datasets": "eval-data",
    "n-epochs": "epochs",
    "n-examples": "max-steps",
    "microbatch-size": "micro-batch-size",
    "warmup": "warmup-steps",
    "policy-dtype": "precision",
    "cache-reference-logprobs": "reference-cache",
    "intermediate-checkpoints": "save-every",
}
"""Other trainers' names -> ours; docs/migration.md says where the meaning differs."""
OTHER_METHODS = frozenset(
    {"aot", "aot-unpaired", "apo", "apo-down", "apo-zero", "bco", "bco-pair", "cdpo", "cpo", "discopop"}
    | {"exo", "exo-pair", "grpo", "hinge", "kto", "nash-md", "nca", "nca-pair", "online-dpo", "orpo"}
    | {"ppo", "rloo", "robust", "rpo", "sft", "slic", "slic-hf", "sppo", "sppo-hard", "xpo"}
)
"""Losses of other trainers: a user who asks for one does not mean a similarly spelled one of ours."""


def spellings(name: str) -> list[str]:
    """A name as it was typed, and with dashes: ``sppo_hard`` of other trainers is ``sppo-hard`` here."""
    return list(dict.fromkeys((name, name.replace("_", "-"))))


def suggest(name: str, known: Iterable[str]) -> str | None:
    """The hint for an unknown name, such as ``did you mean --lr?``; None if nothing is close."""
    near = nearest(name, known)
    return f"did you mean {' or '.join(near)}?" if near else None


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that ``name`` was probably meant to be, most likely first.

    The same name with other case or dashes, or another trainer's name for it; else the last part of a dotted one
    (``rho`` of ``geometry.rho``); else names with that prefix; else names with similar spelling.
    """
    spelled: dict[str, str] = {}
    for one in known:
        spelled.setdefault(_dashed(one), one)
    plain = _plain(name)
    for word in (plain, plain.rpartition(".")[2]):
        if _dashed(word) in spelled:
            return [spelled[_dashed(word)]]
        here, _, value = MIGRATION.get(word, "").partition(" ")
        if _dashed(here) in spelled:
            return [f"{spelled[_dashed(here)]} {value}".rstrip()]
    if plain in OTHER_METHODS:
        return []
    sought = _dashed(plain)
    parts = [one for one in spelled.values() if _dashed(_plain(one).partition(".")[2]) == sought]
    begun = [one for key, one in spelled.items() if len(sought) > 2 and key.startswith(sought)]
    alike = difflib.get_close_matches(sought, spelled, n=MOST, cutoff=0.6)
    return (parts or begun or [spelled[key] for key in alike])[:MOST]


def _plain(name: str) -> str:
    """A name normalised for case, leading dashes and underscores."""
    return name.lstrip("-+").casefold().replace("_", "-")


def _dashed(name: str) -> str:
    return _plain(name).replace(".", "-")
