"""Judges at work, and what follows from their verdicts: rates, agreement, comparisons."""
