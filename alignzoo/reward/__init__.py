"""Rewards: their inputs, the cache of their scores, and the soft labels from scores."""
