"""From preference data to batches of tokens.

``sources`` -> ``formats`` (which ``layout``; a row of each becomes one canonical ``rows.PromptRow``) ->
``rendering`` -> ``tokens`` -> ``prepare`` -> ``parts`` (``splits``, ``noise``) -> ``stream`` -> ``collate`` (with
``pack``: prompts and their responses in one row). Only the last two import torch.
"""
