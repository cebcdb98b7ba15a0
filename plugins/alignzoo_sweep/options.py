"""The command line of ``sweep``: that of ``run``, with a recipe in front and the methods of all axes."""

from __future__ import annotations

from typing import Any

import click

from alignzoo.cli.flags import LayerOption, PlanCommand, method_options
from alignzoo.cli.selection import words_of
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.sweeps.words import axis_value, axis_word, typed_axes, written

_OF_AXES = "alignzoo_sweep.options"


class SweepCommand(PlanCommand):
    """Takes ``RECIPE`` in front, and ``--KIND.NAME.option`` of every method on an axis."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[RECIPE]", *super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-"):
            args = ["--recipe", *args]
        ctx.meta[_OF_AXES] = _options_of_axes(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "unexpected extra argument" in error.message:
                raise UsageError(f"sweep: {error.message.lower()}", hint="name the recipe first") from error
            raise

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        known = {param.name for param in params}
        return [*params, *(option for option in ctx.meta.get(_OF_AXES, ()) if option.name not in known)]


def _options_of_axes(args: list[str]) -> list[LayerOption]:
    """The options of every method on an axis, whichever runs have it. Mistakes are reported by the command itself."""
    options: dict[str, LayerOption] = {}
    for kind, value in _methods_on_axes(args):
        names = value if isinstance(value, list) else [value]
        flags = [word for name in names if isinstance(name, str) for word in (f"--{kind}", name)]
        for option in method_options(words_of(flags).found):
            if option.key.startswith(f"{kind}."):
                options.setdefault(option.key, option)
    return list(options.values())


def _methods_on_axes(args: list[str]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for word, following in zip(args, [*args[1:], ""], strict=True):
        flag, equals, text = word.partition("=") if word.startswith("--") else ("", "", "")
        try:
            if flag in ("--grid", "--zip"):
                axes = typed_axes([text if equals else following], flag)
            elif flag == "--recipe":
                _, said = written(words_of(["--recipe", text if equals else following]).recipe(text or following))
                axes = {**said.get("grid", {}), **said.get("zip", {})}
            else:
                continue
        except AlignzooError:
            continue
        found += [
            (axis_word(kind), axis_value(kind, one)) for kind, some in axes.items() if kind in KINDS for one in some
        ]
    return found
