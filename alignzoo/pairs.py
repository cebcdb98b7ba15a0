"""The public name of :class:`~alignzoo.contract.pairs.PairBatch`."""

from alignzoo.contract.pairs import DIFFERENTIABLE, PairBatch

__all__ = ["DIFFERENTIABLE", "PairBatch"]
