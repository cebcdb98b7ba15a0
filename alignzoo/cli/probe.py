"""``alignzoo probe``: train the safety probe by itself."""

from __future__ import annotations

from typing import Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import ConsoleReporter, print_json, print_table
from alignzoo.cli.flags import flag_layer, setting_options
from alignzoo.plugin.resolve import require, resolve

SETTINGS = ("model", "data", "data_split", "data_format", "max_length", "max_prompt_length", "seed")


@cli_command("probe")
@setting_options(*SETTINGS)
@click.option("--out", required=True, metavar="DIR", help="folder for the trained probe")
@click.option("--max-pairs", type=click.IntRange(min=1), metavar="N", help="use at most this many pairs")
@json_option
@click.pass_context
def command(ctx: click.Context, out: str, max_pairs: int | None, as_json: bool, **_words: Any) -> None:
    """Train a safety probe on the model's hidden states, save it, and say how well it separates held-out prompts.

    Give the folder to a run with --geometry.probe DIR.
    """
    settings = require(resolve([flag_layer(ctx)])).settings
    from alignzoo.geometry.probe_run import probe_command

    result = probe_command(settings, out=out, max_pairs=max_pairs, reporter=ConsoleReporter())
    if as_json:
        print_json(result)
    else:
        print_table(["", ""], _rows(result))


def _rows(facts: dict[str, Any], prefix: str = "") -> list[list[str]]:
    rows: list[list[str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}.")
        else:
            rows.append([f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)])
    return rows
