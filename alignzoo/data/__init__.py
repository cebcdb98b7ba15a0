"""From a source of preference pairs to batches of tokens.

``sources`` -> ``formats`` (one canonical ``rows.PreferenceRow``) -> ``rendering`` -> ``tokens`` -> ``prepare`` ->
``splits`` / ``noise`` -> ``stream`` -> ``collate`` (with ``pack``: pairs in one row). Only these two import torch.
"""
