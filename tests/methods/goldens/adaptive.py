"""Losses adapted to the pair or the step. Those with running statistics are new here; their own tests have steps."""

from golden import Golden

from goldens.squared import ENTROPIES

GOLDEN = [
    # The authors' function without its adaptive part.
    Golden("alpha-dpo", (3.936378, 3.719002, 4.900329, 3.336219), {"beta": 10.0, "gamma_beta_ratio": 0.4}),
    # In the order of the pairs' margins these are 0.704460, 0.691898, 0.683197, 0.666025.
    Golden("aot", (0.683197, 0.704460, 0.691898, 0.666025), {"beta": 0.01}),
    Golden("aot-unpaired", (0.685675, 0.685675, 0.685675, 0.688160), {"beta": 0.01}),
    Golden("beta-dpo", (0.598139, 0.854355, 0.644397, 0.455492), {"beta": 0.1}),
    Golden("gamma-po", (3.933260, 3.723050, 4.878226, 3.356772), {"beta": 10.0, "gamma_beta_ratio": 0.4, "tau": 10.0}),
    Golden(
        "gamma-po",
        (0.604055, 0.785913, 0.636622, 0.503330),
        {"form": "dpo", "beta": 0.1, "gamma_beta_ratio": 10.0, "tau": 0.5},
    ),
    # The authors' function, run on these pairs.
    Golden("mallows-dpo", (0.647562, 0.739857, 0.650652, 0.653238), {"beta": 0.1}, ENTROPIES),
]
