"""The safety probe: a linear classifier on hidden states."""
