"""A run's command-line options: the settings, and the options of the methods named on the line.

Values are passed on as typed; the resolver validates them, so an invalid value gets the same message from a flag and
from a recipe.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from alignzoo.base.suggest import MIGRATION
from alignzoo.cli.command import Command
from alignzoo.cli.fields import FieldFacts, field_facts
from alignzoo.cli.selection import Words, words_of
from alignzoo.contract.card import WEIGHT, Card
from alignzoo.contract.kinds import KINDS, Kind
from alignzoo.plan.picks import Selection
from alignzoo.plan.recipe import Layer, recipe_names
from alignzoo.plan.select import owners
from alignzoo.plan.settings import Settings
from alignzoo.plugin.registry import registry

Function = TypeVar("Function", bound=Callable[..., Any])

METHODS, SETTINGS = "Methods", "Settings"
_WORDS = "alignzoo.words"
_METHOD_OPTIONS = "alignzoo.method_options"
_METHOD_WORD = re.compile(rf"--(?:no-)?(({'|'.join(KINDS)})\.([^=]+))")
_STATES_DEFAULT = re.compile(r"\[default:[^]]*]$")


class LayerOption(click.Option):
    """An option whose value goes, unchecked, into the layer of flags under ``key``."""

    def __init__(self, declarations: Sequence[str], *, key: str, group: str, **attributes: Any) -> None:
        # The default must be None, not a value: only what was typed may override a recipe.
        super().__init__([*declarations, _identifier(key)], default=None, **attributes)
        self.key = key
        self.group = group


class PlanCommand(Command):
    """A command that takes everything that defines a run: methods, their options, settings and recipes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: Words = words_of(args)
        ctx.meta[_WORDS] = words
        ctx.meta[_METHOD_OPTIONS] = [*method_options(words.found), *_unjudged_options(words.found, args)]
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        naming = [param for param in params if isinstance(param, LayerOption) and param.group == METHODS]
        kinds = {param.key for param in naming}
        of_methods = [option for option in ctx.meta.get(_METHOD_OPTIONS, []) if option.key.partition(".")[0] in kinds]
        settings = [param for param in params if getattr(param, "group", None) == SETTINGS]
        others = [param for param in params if not isinstance(param, LayerOption)]
        return [*naming, *of_methods, *settings, *others]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "group", "Command"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def unknown_option_hint(self, ctx: click.Context, name: str) -> str | None:
        """The hint for an option that belongs to a method not named on the line."""
        match = _METHOD_WORD.match(name)
        if match is not None:
            kind, option = match[2], match[3].rpartition(".")[2]
            cards = ctx.meta[_WORDS].found.cards
            here = owners(option, cards)
            if here:
                return f"did you mean {' or '.join(here)}?"
            if option.replace("_", "-") in MIGRATION:
                return super().unknown_option_hint(ctx, name)
            having = [
                method.name
                for _, method in registry().entries()
                if isinstance(method, Card) and method.kind == kind and option in method.options.model_fields
            ]
            if having:
                chosen = ", ".join(card.name for card in cards if card.kind == kind) or "none"
                return f"the {kind} here is {chosen}; add --{kind} {' or '.join(having)}, which has that option"
        return super().unknown_option_hint(ctx, name)


def run_options(function: Function) -> Function:
    """Adds ``--KIND`` of every kind of method, and all settings, to a :class:`PlanCommand`."""
    return _with_options(function, [*_naming_options(KINDS), *_setting_options(Settings.model_fields)])


def kind_options(*kinds: str) -> Callable[[Function], Function]:
    """Adds ``--KIND`` of some kinds of methods to a :class:`PlanCommand`."""
    return lambda function: _with_options(function, _naming_options(kinds))


def setting_options(*names: str) -> Callable[[Function], Function]:
    """Adds some settings of a run to a command, by the names of their fields."""
    return lambda function: _with_options(function, _setting_options(names))


def _with_options(function: Function, options: Sequence[LayerOption]) -> Function:
    """Like click's own decorators, for existing options."""
    decorated: Any = function
    decorated.__click_params__ = [*getattr(decorated, "__click_params__", []), *reversed(options)]
    return function


def plan_layers(ctx: click.Context) -> list[Layer]:
    """The recipes of a :class:`PlanCommand` line, each read once, and the typed options.

    Raises:
        AlignzooError: a recipe cannot be read.
    """
    words: Words = ctx.meta[_WORDS]
    return [*(words.recipe(name) for name in ctx.params.get("recipe", ())), flag_layer(ctx)]


def flag_layer(ctx: click.Context) -> Layer:
    """The typed options, as the strongest layer."""
    return Layer("flag", {option.key: value for option, value in given_options(ctx)})


def given_options(ctx: click.Context) -> Iterator[tuple[LayerOption, Any]]:
    """Each typed run option, with its value."""
    for param in ctx.command.get_params(ctx):
        if isinstance(param, LayerOption):
            value = ctx.params.get(str(param.name))
            if value is not None and value != ():
                yield param, list(value) if isinstance(value, tuple) else value


def split_trust(ctx: click.Context) -> tuple[bool, list[str]]:
    """Whether ``--trust-remote-code`` was typed, which a run folder cannot grant itself; and the other options."""
    given = {option.key: value for option, value in given_options(ctx)}
    trusting = given.get("trust-remote-code") is True
    return trusting, [key for key in given if not (trusting and key == "trust-remote-code")]


def method_options(found: Selection) -> list[LayerOption]:
    """``--KIND.X`` and, to tell several methods of a kind apart, ``--KIND.NAME.X``."""
    options: dict[str, LayerOption] = {}
    for name, picks in found.picks.items():
        for pick in picks:
            names = sorted(pick.called, key=lambda called: called != pick.card.name) if KINDS[name].several else []
            for option in _options_of(KINDS[name], pick.card, names, alone=len(picks) == 1):
                options.setdefault(option.key, option)
    return list(options.values())


def _options_of(kind: Kind, card: Card, names: Sequence[str], *, alone: bool) -> list[LayerOption]:
    """The flags of one method; help shows the short form if it is the only one of its kind, else the qualified one."""
    group = f"{kind.name.capitalize()} {card.name}"
    options = []
    for field, info in card.options.model_fields.items():
        facts = field_facts(field, info)
        options.append(_option(f"{kind.name}.{field}", facts, group, hidden=not alone))
        options += [
            _option(f"{kind.name}.{name}.{field}", facts, group, hidden=alone or name != card.name) for name in names
        ]
    if kind.multiplicity == "mixture" and WEIGHT not in card.options.model_fields:
        text = "weight of this term in the mixture [default: 1; > 0]"
        options.append(_weight_option(f"{kind.name}.{WEIGHT}", text, group, hidden=True))  # rejected with a hint
        options += [
            _weight_option(f"{kind.name}.{name}.{WEIGHT}", text, group, hidden=alone or name != card.name)
            for name in names
        ]
    return options


def _weight_option(key: str, text: str, group: str, *, hidden: bool) -> LayerOption:
    return LayerOption(
        [f"--{key}"], key=key, group=group, help=text, hidden=hidden, metavar="NUMBER", type=click.STRING
    )


def _unjudged_options(selection: Selection, args: Sequence[str]) -> list[LayerOption]:
    """Placeholders for options of methods that were not found or are not named here: the error to show is the method's,
    the resolver's or that of ``--resume``."""
    resuming = any(word.partition("=")[0] == "--resume" for word in args)
    known = {option.key for option in method_options(selection)}
    called = {kind: {name for pick in picks for name in pick.called} for kind, picks in selection.picks.items()}
    found: dict[str, LayerOption] = {}
    for word, following in itertools.pairwise([*args, "--"]):
        match = _METHOD_WORD.match(word)
        if match is None or match[1] in known:
            continue
        owner, dot, _ = match[3].partition(".")
        elsewhere = bool(dot) and owner not in called[match[2]]
        if resuming or elsewhere or match[2] in selection.unresolved:
            key, kind = match[1], match[2]
            alone = "=" not in word and following.startswith("--")
            bare: dict[str, Any] = {"is_flag": False, "flag_value": ""} if alone else {}
            words = [f"--{key}", f"--no-{key}"]
            found[key] = LayerOption(words, key=key, group=kind.capitalize(), hidden=True, **bare)
    return list(found.values())


def _naming_options(kinds: Iterable[str]) -> list[LayerOption]:
    def names(kind: str) -> Callable[..., list[CompletionItem]]:
        return lambda ctx, param, incomplete: [
            CompletionItem(method.name)
            for _, method in registry().entries()
            if method.kind == kind and method.name.startswith(incomplete)
        ]

    def option(kind: Kind) -> LayerOption:
        default = f" [default: {kind.default.rpartition(':')[2]}]" if isinstance(kind.default, str) else ""
        return LayerOption(
            [f"--{kind.name}"],
            key=kind.name,
            group=METHODS,
            metavar="NAME",
            help=f"{kind.help}{default}; `alignzoo ls {kind.name}` lists them",
            shell_complete=names(kind.name),
            multiple=kind.several,
        )

    return [option(KINDS[kind]) for kind in kinds]


def recipe_option(function: Function) -> Function:
    """Adds ``--recipe`` (repeatable) as the argument ``recipe``."""
    option = click.option(
        "--recipe",
        multiple=True,
        metavar="NAME|FILE|RUN",
        help="recipe or earlier run to start from; later ones win, flags override all (repeatable)",
        shell_complete=lambda ctx, param, incomplete: [
            CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)
        ],
    )
    return option(function)


def _setting_options(names: Iterable[str]) -> list[LayerOption]:
    fields = {name: Settings.model_fields[name] for name in names}
    return [
        _option(Settings.flag(name), field_facts(name, info), SETTINGS, metavar=_metavar(info.json_schema_extra))
        for name, info in fields.items()
    ]


def _metavar(extra: Any) -> str | None:
    given = extra.get("metavar") if isinstance(extra, dict) else None
    return str(given) if given else None


def _option(
    key: str, facts: FieldFacts, group: str, *, hidden: bool = False, metavar: str | None = None
) -> LayerOption:
    text = facts.help if _STATES_DEFAULT.search(facts.help) else facts.full_help()
    if facts.is_bool:
        return LayerOption([f"--{key}/--no-{key}"], key=key, group=group, help=text, hidden=hidden)
    shown = metavar or (f"[{facts.type}]" if facts.choices else facts.type)
    return LayerOption([f"--{key}"], key=key, group=group, help=text, hidden=hidden, metavar=shown, type=click.STRING)


def _identifier(key: str) -> str:
    return re.sub(r"\W", "_", key.replace(".", "__"))
