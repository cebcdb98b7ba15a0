"""Losses without a reference."""

from golden import Golden

GOLDEN = [
    Golden("simpo", (0.963735, 0.936479, 1.088919, 0.889260), {"beta": 2.0, "gamma_beta_ratio": 0.25}),
    Golden("slic", (1.2, 6.55, 1.075, 2.0), {"delta": 1.0, "nll_weight": 0.1}),
    Golden("cpo", (0.575939, 0.825939, 0.656350, 0.241008), {"beta": 0.1, "alpha": 0.0}),
    Golden("cpo", (1.775939, 2.350939, 2.031350, 1.491008), {"beta": 0.1, "alpha": 1.0, "nll": "average"}),
    Golden("cpo", (6.575939, 16.075939, 4.781350, 10.241008), {"beta": 0.1, "alpha": 0.5, "nll": "sum"}),
    Golden("orpo", (1.268721, 1.592389, 1.450569, 1.314592), {"odds_weight": 0.1}),
    Golden("alphapo", (0.729717, 0.687031, 0.919793, 0.624990), {"beta": 2.5, "gamma_beta_ratio": 0.04, "alpha": 0.25}),
]
