"""Sequential KL divergences of pairs, as the TDPO losses read them."""

from __future__ import annotations

from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch


def sequential_kls(pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B,)`` each: Σ_t KL(π_ref ‖ π) of the chosen and of the rejected responses, in nats.

    Raises:
        ValueError: there are none, or the log-probs are no sums.
    """
    if pairs.chosen_kls is None or pairs.rejected_kls is None:
        raise ValueError("no KL divergences: the method's card must declare needs={'reference-kl'}")
    if pairs.aggregation not in (None, "sum"):
        raise ValueError(f"sequential KLs need summed log-probs, not aggregation {pairs.aggregation!r}")
    return pairs.chosen_kls, pairs.rejected_kls
