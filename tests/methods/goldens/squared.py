"""Squared losses."""

from golden import Golden

SAFE = {"chosen_safe": (1.0, 1.0, 0.0, 0.0), "rejected_safe": (0.0, 1.0, 0.0, 1.0)}
SCORES = {"chosen_scores": (1.0, 0.2, 0.6, 2.0), "rejected_scores": (0.0, 0.5, 0.4, -1.0)}
ENTROPIES = {"ref_chosen_entropies": (1.0, 6.0, 0.36, 8.0), "ref_rejected_entropies": (3.6, 7.2, 0.28, 17.5)}
"""Per token (0.1, 0.3, 0.06, 0.5) and (0.3, 0.4, 0.04, 0.7): H = (0.2, 0.35, 0.05, 0.6)."""
GOLDEN = [
    Golden("ipo", (9.0, 64.0, 16.0, 0.25), {"tau": 0.1, "logps": "sum"}),
    Golden("ipo", (23.200278, 26.608403, 23.476332, 22.313814), {"tau": 0.1, "logps": "average"}),
    Golden("cal-dpo", (62001.126928, 63255.298587, 62250.563262, 61132.629078), {"beta": 0.002}),
    Golden("rebel", (0.64, 0.0, 0.01, 6.0025), {"eta": 10.0}, SCORES),
    Golden("rebel", (64.0, 0.0, 1.0, 600.25), {"eta": 10.0, "form": "code"}, SCORES),
    Golden("sppo-hard", (498002.0, 503004.5, 499000.5, 494515.25), {"beta": 0.001}),
    # The authors' functions, run on these pairs; they compute in float32 in part.
    Golden("bfpo", (9604.0, 2809.0, 2601.0, 11130.25), {"beta": 0.01}, SAFE),
    Golden(
        "bfpo",
        (136.111096, 99.999981, 16.0, 230.027787),
        {"beta": 0.1, "b1": 2.5, "alpha": 0.3},
        SAFE,
        tolerance=5e-5,
    ),
    Golden("mallows-ipo", (16.536634, 34.967652, 17.067124, 17.516176), {"beta": 0.1}, ENTROPIES),
]
