"""The public names of what a reward sees: the responses, and once before them the run."""

from alignzoo.contract.scoring import Response, RewardContext

__all__ = ["Response", "RewardContext"]
