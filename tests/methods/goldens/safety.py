"""Safety losses, on pairs in all four states: in order, harmless, turned round, and both unsafe."""

from golden import Golden

SAFE = {"chosen_safe": (1, 1, 0, 0), "rejected_safe": (0, 1, 1, 0)}
TOKENS = {
    "chosen_token_logps": ((-12,), (-30.5,), (-8.25,), (-20,)),
    "rejected_token_logps": ((-14.5,), (-28,), (-9,), (-33,)),
    "ref_chosen_token_logps": ((-13,), (-29,), (-8.75,), (-22.5,)),
    "ref_rejected_token_logps": ((-13.5,), (-29.5,), (-8.5,), (-30,)),
    "chosen_guide_tokens": ((-11,), (-30,), (-8,), (-21,)),
    "rejected_guide_tokens": ((-15,), (-27,), (-9.5,), (-35,)),
    "chosen_token_mask": ((1,), (1,), (1,), (1,)),
    "rejected_token_mask": ((1,), (1,), (1,), (1,)),
}
"""Each response as one token."""

GOLDEN = [
    Golden(
        "safedpo",
        (0.598139, 10.300034, 10.100041, 0.0),
        {"beta": 0.1, "delta": 10.0},
        {"chosen_safe": (1, 1, 0, 0), "rejected_safe": (1, 0, 1, 0)},
    ),
    Golden("door", (2.779262, 24.4, 2.460752, 0.161131), {"alpha": 0.2, "beta": 0.5}, SAFE),
    Golden("w-door", (3.959641, 24.4, 2.134467, 0.161131), {"alpha": 0.2, "beta": 0.5, "tau": 5.0}, SAFE | TOKENS),
    Golden(
        "w-door",
        (1.988030, 24.4, 2.859277, 0.161131),
        {"alpha": 0.2, "beta": 0.5, "tau": 5.0, "sign": "code"},
        SAFE | TOKENS,
    ),
]
