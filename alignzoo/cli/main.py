"""The ``alignzoo`` command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

import click

from alignzoo import __version__
from alignzoo.cli.command import WIDE, debug_option, nearest
from alignzoo.cli.console import silence_closed_pipe, write
from alignzoo.cli.failures import report_failure
from alignzoo.errors import UsageError

COMMANDS = ("run", "ls", "info", "compat", "probe", "recipes", "doctor")
"""Each is the attribute ``command`` of the module of its name."""


class LazyGroup(click.Group):
    """Imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"alignzoo.cli.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UsageError(
                f"unknown command {args[0]!r}", hint=nearest(args[0], COMMANDS, "`alignzoo --help` lists the commands")
            )
        return super().resolve_command(ctx, args)


@click.group("alignzoo", cls=LazyGroup, context_settings=WIDE, invoke_without_command=True)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Preference alignment: any loss x any stack of robust wrappers x any geometry controller.

    `alignzoo run` trains with the embedded model and data; `alignzoo ls` lists the methods.
    """
    if ctx.invoked_subcommand is None:
        write(sys.stdout, ctx.get_help())


cli.params.append(debug_option())


def main(args: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its code: see :mod:`alignzoo.errors`."""
    words = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # formulas hold symbols that a terminal's encoding may lack
    code = _exit_code(words)
    silence_closed_pipe(sys.stdout)
    silence_closed_pipe(sys.stderr)
    sys.exit(code)


def _exit_code(words: list[str]) -> int:
    try:
        code: Any = cli.main(args=words, prog_name="alignzoo", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        return report_failure(error, as_json="--json" in words, debug="--debug" in words)
    return code if isinstance(code, int) else 0
