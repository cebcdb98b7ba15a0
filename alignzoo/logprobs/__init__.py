"""From tokens to log-probs: packed or padded forward passes, and the fused head."""
