"""Estimates of a run: memory, work and time from a model's shapes alone, without its weights."""
