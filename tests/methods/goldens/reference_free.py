"""Losses without a reference."""

from golden import Golden

GOLDEN = [Golden("simpo", (0.963735, 0.936479, 1.088919, 0.889260), {"beta": 2.0, "gamma_beta_ratio": 0.25})]
