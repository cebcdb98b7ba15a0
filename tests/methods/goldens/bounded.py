"""Bounded losses."""

from golden import Golden

GOLDEN = [
    Golden("hinge", (0.8, 1.3, 0.9, 0.45), {"beta": 0.1}),
    Golden("apo-zero", (0.950042, 1.074860, 0.975005, 0.863381), {"beta": 0.1}),
    Golden("apo-down", (0.975145, 1.037013, 0.987518, 0.928041), {"beta": 0.1}),
    Golden("discopop", (0.873792, 0.789495, 0.875181, 0.758780), {"beta": 0.05, "tau": 0.05}),
    Golden("sympo", (0.450166, 0.574443, 0.475021, 0.365864), {"beta": 0.1, "shape": "sigmoid"}),
    Golden("sympo", (0.4, 0.65, 0.45, 0.225), {"beta": 0.1, "shape": "symmetric-ramp"}),
    Golden("ropo", (1.717449, 2.214253, 1.815567, 1.388201), {"beta": 0.1, "alpha": 14.0}),
    Golden("holder-dpo", (-0.574503, -0.389161, -0.537438, -0.696377), {"beta": 0.1, "gamma": 2.0}),
    Golden("gce", (0.488709, 0.643023, 0.518655, 0.390017), {"beta": 0.1, "q": 0.7}),
    Golden("gce", (0.488709, 0.549183, 0.518655, 0.390017), {"beta": 0.1, "q": 0.7, "truncation": 0.5}),
]
