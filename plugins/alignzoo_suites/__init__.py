"""Suites of prompts: one lm-eval task file each."""
