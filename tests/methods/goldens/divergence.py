"""Losses under other divergences."""

from golden import Golden

KLS = {"chosen_kls": (0.5, 2.0, 0.1, 1.0), "rejected_kls": (1.0, 0.5, 0.3, 4.0)}

GOLDEN = [
    Golden("f-dpo", (0.598139, 0.854355, 0.644397, 0.455492), {"beta": 0.1, "divergence": "reverse-kl"}),
    Golden("f-dpo", (0.582517, 0.928575, 0.642395, 0.126887), {"beta": 0.1, "divergence": "forward-kl"}),
    Golden("f-dpo", (0.644397, 0.770957, 0.668460, 0.555646), {"beta": 0.1, "divergence": "js"}),
    Golden("f-dpo", (0.596783, 0.860243, 0.644218, 0.415815), {"beta": 0.1, "divergence": "alpha", "alpha": 0.3}),
    Golden("exo-pair", (2.422015, 3.286512, 2.589954, 1.871218), {"beta": 0.1, "epsilon": 1e-3}),
    Golden("squaredpo", (0.550698, 1.107014, 0.638354, 0.002364), {"beta": 0.1}),
    Golden("chi-po", (0.499100, 1.120537, 0.596242, 0.158271), {"beta": 0.1}),
    Golden("chi-po", (0.598139, 0.798139, 0.598139, 0.598139), {"beta": 0.1, "radius": 0.1}),
    Golden("square-chi-po", (0.154389, 0.454135, 0.201711, 0.021427), {"beta": 0.1}),
    Golden("square-chi-po", (0.268245, 0.638234, 0.329616, 0.073648), {"beta": 0.1, "flip_rate": 0.1}),
    Golden("tdpo1", (0.620957, 0.770957, 0.653947, 0.575939), {"beta": 0.1}, KLS),
    Golden("tdpo2", (0.609470, 0.811962, 0.649159, 0.513015), {"beta": 0.1, "alpha": 0.5}, KLS),
]
