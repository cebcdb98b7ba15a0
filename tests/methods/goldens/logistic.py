"""Logistic losses."""

from golden import Golden

GOLDEN = [Golden("dpo", (0.598139, 0.854355, 0.644397, 0.455492), {"beta": 0.1})]
