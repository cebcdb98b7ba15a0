"""The options of both commands that say how responses are decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

MOST = 256
"""Default of ``--max-new-tokens``."""


def decoding_options(function: Function) -> Function:
    """Adds ``--system``, ``--temperature``, ``--top-p``, ``--max-new-tokens`` and ``--seed``."""
    options = [
        click.option("--system", metavar="TEXT", help="system prompt"),
        click.option(
            "--temperature",
            type=click.FloatRange(min=0),
            default=0.0,
            metavar="X",
            help="0: greedy; above 0: sample [default: 0]",
        ),
        click.option(
            "--top-p",
            type=click.FloatRange(0, 1, min_open=True),
            default=1.0,
            metavar="X",
            help="sample from the most probable tokens that share X of the probability [default: 1, all]",
        ),
        click.option(
            "--max-new-tokens",
            type=click.IntRange(min=1),
            metavar="N",
            help=f"most new tokens of a response [default: {MOST}, at most half of the model's positions]",
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), default=0, metavar="N", help="seed of sampling [default: 0]"
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function
