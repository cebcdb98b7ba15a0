"""The ``alignzoo`` command."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

import click
from click.shell_completion import CompletionItem

from alignzoo.base.shown import printable
from alignzoo.base.stop import ignore_requests, interruptible, keep_exit_code
from alignzoo.base.suggest import suggest
from alignzoo.cli.command import WIDE, with_shared_options, write_commands
from alignzoo.cli.console import silence_closed_pipe, write
from alignzoo.cli.failures import report_failure
from alignzoo.distributed.process import leave_group
from alignzoo.errors import AlignzooError, BrokenPluginError, UnknownNameError, UsageError
from alignzoo.plugin.build import import_target
from alignzoo.plugin.declared import OWN_COMMANDS
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.faults import describe_error
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import plugins_from, registry
from alignzoo.version import __version__

COMMANDS = OWN_COMMANDS
"""Each is the attribute ``command`` of the module with its name."""


class LazyGroup(click.Group):
    """Imports a command's module on first use; plugins can add commands (hook ``alignzoo_commands``)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *(card.name for _, card in registry().extensions("command"))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            found: click.Command = importlib.import_module(f"alignzoo.cli.{cmd_name}").command
            return found
        card = registry().find_extension("command", cmd_name)
        made = import_target(card)
        if not isinstance(made, click.Command):
            raise BrokenPluginError(
                f"command {cmd_name!r}: {card.target} is a {type(made).__name__}, expected a click command",
                hint=f"fix or uninstall {registry().distribution_of(card)}",
            )
        plugin = registry().plugin_of(card)
        return with_shared_options(made if _is_own(plugin) else _named(made, card.name, plugin))

    def get_help(self, ctx: click.Context) -> str:
        """The help, with control characters in plugins' cards escaped."""
        return printable(super().get_help(ctx))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Command names without importing any: a broken one must not block completion of the others."""
        if not incomplete.startswith("-"):
            return [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and summaries; plugins' commands are not imported for this."""
        brought = registry().extensions("command")
        own = [click.Command(card.name, short_help=card.summary) for plugin, card in brought if _is_own(plugin)]
        write_commands(formatter, [*(self._own(ctx, name) for name in COMMANDS), *own])
        others = [(card.name, f"{card.summary} ({plugin.label})") for plugin, card in brought if not _is_own(plugin)]
        if others:
            with formatter.section("Plugin commands"):
                formatter.write_dl(others)

    def _own(self, ctx: click.Context, name: str) -> click.Command:
        command = self.get_command(ctx, name)
        assert command is not None
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in COMMANDS or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        try:
            return args[0], self.get_command(ctx, args[0]), args[1:]
        except UnknownNameError as error:
            known = self.list_commands(ctx)
            raise UsageError(
                f"unknown command {args[0]!r}", hint=suggest(args[0], known) or "`alignzoo --help` lists the commands"
            ) from error


def _is_own(plugin: Plugin) -> bool:
    """Whether the plugin ships with alignzoo."""
    return plugin.distribution == OWN_DISTRIBUTION


def _named(made: click.Command, name: str, plugin: Plugin) -> click.Command:
    """A plugin's command whose failures name the plugin; ``sys.exit`` in it exits as requested."""
    invoke = made.invoke
    if hasattr(invoke, "alignzoo_named"):
        return made

    def named(ctx: click.Context) -> Any:
        try:
            return invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, AlignzooError):
            raise
        except SystemExit as ended:
            if ended.code is not None and not isinstance(ended.code, int):
                raise AlignzooError(str(ended.code)) from ended
            ctx.exit(ended.code or 0)
        except Exception as error:
            raise AlignzooError(
                f"command {name!r} of plugin {plugin.label} failed: {describe_error(error)}",
                hint="run again with --debug for the traceback",
            ) from error

    named.alignzoo_named = True  # type: ignore[attr-defined]
    made.invoke = named  # type: ignore[method-assign]
    return made


@click.group("alignzoo", cls=LazyGroup, context_settings=WIDE, invoke_without_command=True)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Preference alignment: any loss x any stack of robust wrappers x any geometry controller.

    `alignzoo run` trains the embedded model on the embedded data; `alignzoo ls` lists the methods.
    """
    if ctx.invoked_subcommand is None:
        write(sys.stdout, ctx.get_help())


with_shared_options(cli)


def main(args: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its code: see :mod:`alignzoo.errors`.

    Args:
        args: the arguments when called from Python; None uses those of this process, and exits it at the end.
    """
    words = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # formulas contain symbols that a terminal's encoding may lack
    with interruptible():
        code = _exit_code(words)
        silence_closed_pipe(sys.stdout)
        silence_closed_pipe(sys.stderr)
        if args is None:
            keep_exit_code(code)
            leave_group(failed=code != 0)
    sys.exit(code)


def _exit_code(words: list[str]) -> int:
    with plugins_from(*_plugin_files(words), third_party="--no-plugins" not in words):
        try:
            code: Any = cli.main(args=words, prog_name="alignzoo", standalone_mode=False, obj=words)
            ignore_requests()
        except SystemExit as ended:
            ignore_requests()
            if "_ALIGNZOO_COMPLETE" in os.environ:  # click exits this way after shell completion
                return ended.code if isinstance(ended.code, int) else 0
            return report_failure(ended, as_json="--json" in words, debug="--debug" in words)
        except BaseException as error:  # third-party code must not make a failed command look successful
            ignore_requests()
            return report_failure(error, as_json="--json" in words, debug="--debug" in words)
    return code if isinstance(code, int) else 0


def _plugin_files(words: list[str]) -> list[str]:
    """The values of ``--plugin FILE`` and ``--plugin=FILE``."""
    after = [following for word, following in itertools.pairwise(words) if word == "--plugin"]
    return after + [word.partition("=")[2] for word in words if word.startswith("--plugin=")]
