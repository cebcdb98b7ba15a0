"""From a source of preference pairs to batches of tokens.

``sources`` -> ``formats`` (one canonical ``rows.PreferenceRow``) -> ``rendering`` -> ``tokens`` -> ``prepare`` ->
``splits`` / ``noise`` -> ``stream`` -> ``collate``. Only ``collate`` imports torch.
"""
