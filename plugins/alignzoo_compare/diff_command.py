"""``alignzoo diff``: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table

_LONGEST = 34
"""Characters of a value; three columns fit into 100."""


@cli_command("diff")
@click.argument("first", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("second", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="show what both share as well")
@json_option
def command(first: Path, second: Path, everything: bool, as_json: bool) -> None:
    """Show what differs between two runs, finished or not: plan, data, environment, metrics and cost.

    The metrics are the figures before and after training, the hash of the weights, and the first training step whose
    metrics differ.
    """
    from alignzoo.comparison.diff import diff
    from alignzoo.records import read_run

    found = diff(read_run(first), read_run(second))
    if as_json:
        content = {"first": str(first), "second": str(second), "same_result": found.same_result}
        print_json({**content, **found.to_dict(everything=everything)})
        return
    for section, facts in found.sections.items():
        rows = [[fact.name, _shown(fact.first), _shown(fact.second)] for fact in facts if everything or fact.differs]
        if rows:
            print_table([section, *_names(first, second)], rows)
            print_lines("")
    if found.same_result:
        print_lines("same weights, figures and metrics, bit for bit")


def _names(first: Path, second: Path) -> list[str]:
    alike = first.resolve().name == second.resolve().name
    return [_cut(str(path) if alike else path.resolve().name) for path in (first, second)]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if value != round(value, 4) else str(value)
    return _cut(", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"
