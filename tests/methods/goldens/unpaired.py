"""Losses of single responses, in their forms for pairs."""

from golden import Golden

GOLDEN = [
    Golden("bco-pair", (1.288793, 1.541914, 1.336919, 1.130295), {"beta": 0.1}),
    Golden(  # the mean of the two halves, each of them known to six decimals
        "kto-pair",
        (
            (0.475021 + 0.459464) / 2,
            (0.537430 + 0.521861) / 2,
            (0.487503 + 0.471905) / 2,
            (0.437823 + 0.410355) / 2,
        ),
        {"beta": 0.1},
    ),
]
