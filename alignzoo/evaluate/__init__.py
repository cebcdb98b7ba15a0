"""Evaluation of a model on held-out rows and of its generated answers."""
