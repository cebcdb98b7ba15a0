"""Rewards: sources of response scores, one file each."""

from alignzoo.plugin import RewardCard, hookimpl
from alignzoo_rewards import column, hf, probe


@hookimpl
def alignzoo_methods() -> list[RewardCard]:
    """The cards of the rewards."""
    return [column.CARD, hf.CARD, probe.CARD]
