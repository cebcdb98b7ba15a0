"""Squared losses."""

from golden import Golden

GOLDEN = [
    Golden("ipo", (9.0, 64.0, 16.0, 0.25), {"tau": 0.1, "logps": "sum"}),
    Golden("ipo", (23.200278, 26.608403, 23.476332, 22.313814), {"tau": 0.1, "logps": "average"}),
]
