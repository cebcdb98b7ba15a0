"""Recipes of several stages, run one after another: training, merging weights, generating responses."""
