"""The dispersion of Mallows' ranking model, estimated from the reference's entropy."""

from __future__ import annotations

from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch

LEAST_ENTROPY = 1e-6
"""Of a token, as a share of log V: a reference that is sure of every token must not give an infinite weight."""


def negative_log_dispersion(pairs: PairBatch, scale: float) -> torch.Tensor:
    """φ ``(B,)``: −scale·log H; H is the mean over both responses of the reference's mean entropy per token, /log V.

    Raises:
        ValueError: the pairs have no entropies.
    """
    if pairs.ref_chosen_entropies is None or pairs.ref_rejected_entropies is None:
        raise ValueError("no entropies: the method's card must declare needs={'reference-entropy'}")
    chosen = pairs.ref_chosen_entropies / pairs.chosen_lengths
    rejected = pairs.ref_rejected_entropies / pairs.rejected_lengths
    return -scale * ((chosen + rejected) / 2).clamp(min=LEAST_ENTROPY).log()
