"""What a method can ask of the core, and what its authors claim that it mitigates."""

from __future__ import annotations

from typing import Literal, get_args

Need = Literal[
    "reference",
    "token-logps",
    "scores",
    "reward",
    "groups",
    "probe",
    "swap",
    "labels",
    "mismatched",
    "safety",
    "hidden-states",
    "reference-kl",
    "reference-entropy",
    "collisions",
    "embedding-gradients",
    "guide",
    "contrast",
]
PROVIDED: frozenset[Need] = frozenset(get_args(Need))
"""What the core can supply; the resolver rejects a method that needs anything else."""

Problem = Literal[
    "label-noise",
    "length-bias",
    "displacement",
    "overoptimisation",
    "distribution-shift",
    "safety",
    "forgetting",
]
PROBLEMS: dict[Problem, str] = {
    "label-noise": "wrong preference labels",
    "length-bias": "longer responses without better content",
    "displacement": "chosen log-probs that fall together with rejected ones",
    "overoptimisation": "margins that grow without bound, away from the reference",
    "distribution-shift": "test data unlike the training data, including groups and sharp minima",
    "safety": "refusing harmful requests, also under attack",
    "forgetting": "loss of abilities that the data does not exercise",
}
"""What a method's authors claim that it mitigates (``alignzoo ls --for``)."""
