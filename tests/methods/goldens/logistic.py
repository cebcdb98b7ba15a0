"""Logistic losses."""

from golden import Golden

GAP_OF_2 = {"chosen_scores": (3.0, 0.5, 2.0, 1.0), "rejected_scores": (1.0, -1.5, 0.0, -1.0)}
SCORES = {"chosen_scores": (1.5, 2.2, 3.6, 2.0), "rejected_scores": (1.0, 0.5, 0.4, 0.9)}
GOLDEN = [
    Golden("dpo", (0.598139, 0.854355, 0.644397, 0.455492), {"beta": 0.1}),
    Golden("dpo-norm", (0.336365, 1.165358, 0.379294, 0.224154), {"beta": 5.0}),
    Golden("dpo-shift", (0.600393, 0.850054, 0.645585, 0.461007), {"beta": 0.1, "rejected_weight": 0.95}),
    Golden("dpop", (0.598139, 7.800410, 0.644397, 0.455492), {"beta": 0.1, "penalty": 50.0}),
    Golden("nca-pair", (1.381319, 1.393851, 1.383801, 1.372718), {"beta": 0.01}),
    Golden("odpo", (0.969817, 1.308256, 1.033069, 0.767280), {"beta": 0.1, "alpha": 1.0}, GAP_OF_2),
    # The authors' function, run on these pairs.
    Golden("odpo", (0.456747, 1.015231, 0.962648, 0.473192), {"beta": 0.1, "alpha": 0.5}, SCORES),
    Golden(
        "odpo",
        (0.694514, 1.343253, 1.312247, 0.620612),
        {"beta": 0.1, "alpha": 0.5, "offset": "log-ratio"},
        SCORES,
    ),
    Golden("r-dpo", (0.693147, 0.744397, 0.693147, 0.883382), {"beta": 0.1, "alpha": 0.1}),
]
