"""Resolves command lines, recipes and run folders to a plan."""
