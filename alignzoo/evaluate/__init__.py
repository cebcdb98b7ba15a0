"""Figures of a model: on held-out pairs."""
