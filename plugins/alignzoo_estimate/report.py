"""An estimate as plain data: everything that ``alignzoo plan`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo_estimate.advice import Change
from alignzoo_estimate.estimate import Estimate
from alignzoo_estimate.hardware import OF_A_LINK
from alignzoo_estimate.situation import Situation


def report(
    found: Estimate,
    steps: int | None,
    advice: Sequence[Change],
    paths: Mapping[str, Sequence[Change]],
    largest: int | None,
) -> dict[str, Any]:
    """The whole estimate, as printed by ``--json``; bytes and FLOPs are per device."""
    s, shapes = found.situation, found.situation.shapes
    peak = found.peak
    return {
        "model": s.settings.model,
        "sentence": s.plan.sentence(),
        "parameters": {
            "total": shapes.total,
            "trained": s.trained,
            "embedding": shapes.embedding,
            "head": shapes.head,
            "layers": shapes.layers,
            "experts": shapes.experts,
            "other": shapes.other,
            "active": shapes.active,
            "tied": shapes.tied,
        },
        **_machine(s),
        "data": {
            "source": s.data.source,
            "prompt": s.data.mean.prompt,
            "responses": list(s.data.mean.responses),
            "longest": s.data.longest.longest,
            "rows": s.data.rows,
            "percentiles": {str(p): count for p, count in s.data.percentiles},
        },
        "step": {
            "packed": s.packed,
            "rows_per_device": s.rows_per_step,
            "micro_batches": s.micro_batches,
            "rows_per_micro_batch": s.rows_per_micro_batch,
            "passes": s.passes,
            "forwards": s.forwards,
        },
        "memory": {
            "peak": peak.total,
            "at": peak.name,
            "parts": peak.parts,
            "moments": {moment.name: {"total": moment.total, "parts": moment.parts} for moment in found.moments},
        },
        "geometry": {"kept": s.added.kept, "passing": s.added.passing, "measured": s.added.measured},
        "host": None if found.host is None else {**vars(found.host), "peak": found.host.peak},
        "work": {**vars(found.work), "total": found.work.total},
        "traffic": {**vars(found.traffic), "exchanged": found.traffic.exchanged},
        "time": _time(found, steps),
        "fits": found.fits,
        "largest_micro_batch_tokens": largest,
        "changes": [_change(one) for one in advice],
        "together": {how: [_change(one) for one in path] for how, path in paths.items()},
    }


def _machine(s: Situation) -> dict[str, Any]:
    hardware = s.hardware
    return {
        "devices": {
            "count": hardware.devices,
            "kind": "gpu" if hardware.cuda else "cpu",
            "memory": hardware.memory,
            "nodes": hardware.nodes,
            "sharding": "fsdp2" if hardware.sharding == "fsdp" else hardware.sharding,
        },
        "dtypes": {
            "compute": "bf16" if s.bf16 else "fp32",
            "frozen_weights": "bf16" if s.frozen_bytes == 2 else "fp32",
        },
    }


def _time(found: Estimate, steps: int | None) -> dict[str, Any]:
    hardware = found.situation.hardware
    return {
        "rate": hardware.rate,
        "utilisation": hardware.utilisation,
        "link": hardware.link,
        "network": hardware.network,
        "of_a_link": OF_A_LINK,
        "work": found.computing,
        "traffic": found.communicating,
        "step": found.seconds,
        "overlapped": found.overlapped,
        "steps": steps,
        "run": found.seconds * steps if found.seconds is not None and steps is not None else None,
    }


def _change(one: Change) -> dict[str, Any]:
    host = one.estimate.host
    return {"words": one.words, "peak": one.total, "fits": one.estimate.fits, "host": host and host.peak}
