"""Suites of prompts: their files, where their data lies, jailbreaks around them."""
