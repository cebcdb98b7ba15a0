"""Losses, wrappers and aggregations as one differentiable function of the log-probs of a step."""
