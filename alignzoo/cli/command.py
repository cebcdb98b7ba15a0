"""What all commands share: ``--debug``, ``--json``, plugin options, and hints for unknown options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from alignzoo.base.shown import printable
from alignzoo.base.suggest import suggest
from alignzoo.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

WIDE = {"max_content_width": 110, "help_option_names": ["-h", "--help"]}


def json_option(function: Function) -> Function:
    """Adds ``--json`` as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="print JSON, errors included")(function)


def debug_option() -> click.Option:
    """``--debug``, read from the raw arguments so that it also works when parsing them fails."""
    return click.Option(["--debug"], is_flag=True, expose_value=False, help="show the traceback of an error")


def plugin_options() -> list[click.Option]:
    """``--plugin`` and ``--no-plugins``, read from the raw arguments before the command is looked up."""
    return [
        click.Option(
            ["--plugin"],
            multiple=True,
            metavar="FILE",
            expose_value=False,
            help="load a plugin from a file (repeatable)",
        ),
        click.Option(["--no-plugins"], is_flag=True, expose_value=False, help="use built-in methods only"),
    ]


def with_shared_options(command: click.Command) -> click.Command:
    """The command with the options every command has; a plugin's own option of the same name takes precedence."""
    own = {word for param in command.params for word in param.opts}
    command.params += [option for option in (debug_option(), *plugin_options()) if not own & set(option.opts)]
    return command


def write_commands(formatter: click.HelpFormatter, commands: Iterable[click.Command]) -> None:
    """The commands section of a group's help; summaries wrap and are never cut."""
    whole = 1000  # characters: click truncates longer summaries
    with formatter.section("Commands"):
        formatter.write_dl([(str(one.name), one.get_short_help_str(whole)) for one in commands])


class Command(click.Command):
    """A command whose errors are alignzoo's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            raise UsageError(f"unknown option {name}", hint=self.unknown_option_hint(ctx, name)) from error
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click does not always set it, and the hint needs the command's name
            raise

    def make_parser(self, ctx: click.Context) -> Any:
        """click's parser silently takes the last of several values; this one rejects repeats."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            values, rest, order = parse(args)
            _refuse_repeated(order)
            return values, rest, order

        parser.parse_args = parse_once  # type: ignore[method-assign]
        return parser

    def get_help(self, ctx: click.Context) -> str:
        """The help, with control characters in plugins' cards escaped."""
        return printable(super().get_help(ctx))

    def unknown_option_hint(self, ctx: click.Context, name: str) -> str | None:
        """The hint for an option this command does not have."""
        visible = [param for param in self.get_params(ctx) if not getattr(param, "hidden", False)]
        known = [word for param in visible for word in (*param.opts, *param.secondary_opts)]
        return suggest(name, known) or f"`{ctx.command_path} --help` lists the options"

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # A closed output pipe is handled where it is written; click would exit quietly on any other one, too.
            raise RuntimeError("a pipe inside the command broke") from error


def _refuse_repeated(order: list[click.Parameter]) -> None:
    """Reject a second value of a single-value option; a flag may be repeated.

    Args:
        order: the parameters as they were typed.
    """
    if any(param.is_eager for param in order):  # such as --help, which works whatever else is typed
        return
    for option in (param for param in order if isinstance(param, click.Option)):
        times = order.count(option)
        repeatable = option.multiple or option.count or (option.is_flag and not option.secondary_opts)
        if times > 1 and not repeatable:
            raise UsageError(f"{option.opts[0]} takes one value but was given {times} times", hint="keep one of them")


def command(name: str, *, cls: type[Command] = Command) -> Callable[[Callable[..., Any]], Command]:
    """A command with the common options; its help is the function's docstring."""

    def decorate(function: Callable[..., Any]) -> Command:
        made = click.command(name, cls=cls, context_settings=WIDE)(function)
        with_shared_options(made)
        return made

    return decorate
