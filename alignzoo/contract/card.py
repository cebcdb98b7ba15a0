"""What a plugin declares: a method's card with its options model, and smaller cards for other extensions.

A card is frozen and needs no torch, so listings, help and the resolver read it without loading its target.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.fields import FieldInfo

from alignzoo.contract.needs import PROVIDED as PROVIDED
from alignzoo.contract.needs import Need, Problem
from alignzoo.contract.paper import Frozen, Paper, Verified
from alignzoo.contract.values import Values

PLUGIN_API = 2
"""The version of the plugin contract that this alignzoo supports; docs/compatibility.md lists its guarantees."""
OLDEST_PLUGIN_API = 1
"""The oldest supported version. A card for a version outside this range is listed as broken."""

NONE = "none"
"""``--KIND none``: no method of a stacked kind, overriding recipes."""
WEIGHT = "weight"
"""``--KIND.NAME.weight``: a method's weight in a mixture, next to its options."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
TARGET = r"^[\w.]+:\w+$"
"""``package.module:attribute``."""


class Options(Values):
    """Base of every options model: unknown names are errors, values are frozen, numbers are finite.

    Each field has a type, bounds, default and one line of help (``Field(0.1, gt=0, description=...)``); a field that
    may be infinite or NaN sets ``allow_inf_nan=True``.
    """

    model_config = ConfigDict(defer_build=True)  # listings of a hundred methods build none of them

    def needs(self) -> frozenset[Need]:
        """Needs of these particular values, beyond the card's."""
        return frozenset()

    def under(self) -> frozenset[str]:
        """The aggregations that a loss with these particular values is defined under, if its card allows any."""
        return frozenset()

    def couples(self) -> bool:
        """Whether these particular values make a loss or wrapper batch-coupled, even if its card does not say so."""
        return False

    def needs_fp32(self) -> str:
        """Why these particular values do not work in bf16, even if the card does not say so; empty if they do."""
        return ""


def is_path(field: FieldInfo) -> bool:
    """Whether an option names a file or folder: type ``Path``, or ``json_schema_extra={"path": True}``."""
    extra = field.json_schema_extra
    return field.annotation is Path or (isinstance(extra, dict) and bool(extra.get("path")))


class PluginAPIError(Exception):
    """A card was written for a plugin contract that this alignzoo does not support."""


class _Declared(Frozen):
    """The base of every card: a name, a one-line summary, and the plugin API it was written for (default 1)."""

    name: Name
    summary: str
    api: int = 1

    @model_validator(mode="before")
    @classmethod
    def _speaks_our_api(cls, values: Any) -> Any:
        """Runs first: a card for another API version may have fields that this one does not know."""
        api = values.get("api", 1) if isinstance(values, Mapping) else 1
        if isinstance(api, int) and not OLDEST_PLUGIN_API <= api <= PLUGIN_API:
            speaks = f"{OLDEST_PLUGIN_API} to {PLUGIN_API}" if OLDEST_PLUGIN_API < PLUGIN_API else str(PLUGIN_API)
            newer = api > PLUGIN_API
            raise PluginAPIError(
                f"{values.get('name')!r} is written for plugin API {api}, this alignzoo supports {speaks}: "
                + ("upgrade alignzoo" if newer else "upgrade the plugin")
            )
        return values


class Card(_Declared):
    """The facts common to methods of every kind; each kind adds its own in a subclass.

    ``Card(kind="loss", …)`` builds that class.

    Attributes:
        target: ``"package.module:Class"``, imported only when the method is built.
        formula: in the paper's symbols.
        family: the heading it is listed under among the methods of its kind, such as ``squared losses``.
        addresses: the problems that its authors claim to mitigate.
        experimental: what has not been confirmed about it; such a method is marked in listings. Empty: verified.
        needs: what the method reads beyond summed policy log-probs and lengths.
        needs_fp32: why the method does not work where a forward pass rounds the trained weights to bf16, in words;
            ``--precision auto`` is then fp32, except under a new LoRA adapter, whose weights do not lie on that grid.
        expected_failures: rules of the contract (:mod:`alignzoo.testing`) that the method cannot satisfy, each with the
            reason; a rule that passes unexpectedly fails the check as well.
    """

    kind: str
    target: str = Field(pattern=TARGET)
    options: type[Options] = Options
    formula: str
    paper: Paper | None = None
    needs: frozenset[Need] = frozenset()
    family: str = ""
    addresses: frozenset[Problem] = frozenset()
    experimental: str = ""
    aliases: tuple[Name, ...] = ()
    verified: tuple[Verified, ...] = ()
    needs_fp32: str = ""
    expected_failures: dict[str, Reason] = Field(default_factory=dict)

    if TYPE_CHECKING:  # which facts there are depends on the kind

        def __init__(self, **facts: Any) -> None: ...

    def __new__(cls, **facts: Any) -> Card:
        if cls is Card:
            from alignzoo.contract.kinds import kind_of

            cls = kind_of(facts.get("kind")).card
        return super().__new__(cls)

    @model_validator(mode="before")
    @classmethod
    def _facts_are_of_this_kind(cls, values: Any) -> Any:
        """Facts of other kinds: API 1 had one card class for all kinds, so there they are dropped."""
        if not isinstance(values, Mapping):
            return values
        from alignzoo.contract.kinds import KINDS

        owners = {name: kind.name for kind in KINDS.values() for name in kind.facts if name not in cls.model_fields}
        foreign = [name for name in values if name in owners]
        if foreign and values.get("api", 1) != 1:
            raise ValueError(f"{foreign[0]!r} belongs to kind {owners[foreign[0]]}, not to {values.get('kind')}")
        return {name: value for name, value in values.items() if name not in foreign}

    def facts(self) -> list[tuple[str, str]]:
        """The kind-specific facts of the card, as ``(name, text)`` for ``info`` and the docs."""
        return []

    @field_validator("options")
    @classmethod
    def _every_option_has_help(cls, options: type[Options]) -> type[Options]:
        bare = [name for name, field in options.model_fields.items() if not field.description]
        if bare:
            raise ValueError(f"options without a description: {', '.join(bare)}")
        return options


class Composition(_Declared):
    """A published name for a combination of methods: ``--loss drdpo`` is ``--loss dpo --robust drdpo``.

    ``Composition(kind="geometry", geometry="shapo-token", robust=("soft-label",), …)``: the parts are given by kind,
    each a name or several, as keywords or as ``parts``.

    Attributes:
        kind: of the name; one of the parts is of this kind.
        parts: the names of the methods, by kind, in the order of the table of kinds.
    """

    kind: str = "loss"
    paper: Paper | None = None
    parts: dict[str, tuple[str, ...]]
    family: str = ""
    addresses: frozenset[Problem] = frozenset()
    experimental: str = ""
    aliases: tuple[Name, ...] = ()

    if TYPE_CHECKING:  # the parts may be keywords

        def __init__(self, **facts: Any) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _parts_by_kind(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        from alignzoo.contract.kinds import KINDS, kind_of

        given = dict(values.get("parts") or {})
        given |= {name: values[name] for name in KINDS if values.get(name) is not None}
        kind = values.get("kind", cls.model_fields["kind"].default)
        for name in (kind, *given):
            kind_of(name)
        parts = {
            name: (given[name],) if isinstance(given[name], str) else tuple(given[name])
            for name in KINDS
            if given.get(name)
        }
        if kind not in parts:
            raise ValueError(f"a composition of kind {kind} must name a part of that kind")
        return {name: value for name, value in values.items() if name not in KINDS} | {"parts": parts}

    def flags(self) -> str:
        """The command-line flags the name stands for."""
        kinds = sorted(self.parts, key=lambda kind: kind != self.kind)
        return " ".join(f"--{kind} {name}" for kind in kinds for name in self.parts[kind])


ExtensionKind = Literal[
    "recipe", "suite", "jailbreak", "command", "observer", "format", "judge", "model", "data", "evaluator"
]
EXTENSION_KINDS: tuple[ExtensionKind, ...] = get_args(ExtensionKind)


class Extension(_Declared):
    """An extension other than a method. ``target`` is imported only when it is used.

    ==========  ====================================================================================
    kind        what the target is
    ==========  ====================================================================================
    jailbreak   a function of a conversation and a ``random.Random`` that returns the conversation to send:
                ``--jailbreak NAME``
    command     a ``click`` command: ``alignzoo NAME``
    observer    a subclass of :class:`alignzoo.observers.RunObserver`: ``--observe NAME``
    format      a :class:`alignzoo.data.formats.Layout`: ``--data.format NAME``
    judge       a function of a request and an answer that returns a verdict: ``--judge NAME``
    model       a function without arguments that returns a folder, a ``.gguf`` file or a hub id:
                ``--model NAME``
    data        a subclass of :class:`alignzoo.interfaces.DataSource`: ``--data NAME``; its card is a
                :class:`DataExtension`
    evaluator   a subclass of :class:`alignzoo.interfaces.Evaluator`, named on the cards of data;
                its own card is an :class:`EvaluatorExtension`
    ==========  ====================================================================================

    ``Extension(kind="data", …)`` builds the card class of that kind.
    """

    kind: Literal["jailbreak", "command", "observer", "format", "judge", "model", "data", "evaluator"]
    target: str = Field(pattern=TARGET)

    def __new__(cls, **facts: Any) -> Extension:
        kind = facts.get("kind")
        if cls is Extension and kind == "data":
            cls = DataExtension
        elif cls is Extension and kind == "evaluator":
            cls = EvaluatorExtension
        return super().__new__(cls)


class DataExtension(Extension):
    """Data by name.

    Attributes:
        held_out: whether it has a ``validation`` split; otherwise a share of the training prompts is held out.
        layout: the layout of its rows; None detects it.
        clean: no row is malformed, so ``--data.strict`` has nothing to reject.
        evaluator: the evaluator of runs on this data.
    """

    kind: Literal["data"] = "data"
    held_out: bool = False
    layout: str | None = None
    clean: bool = False
    evaluator: str | None = None


class EvaluatorExtension(Extension):
    """Figures from a policy's own answers.

    Attributes:
        judge: the default judge (``--judge`` overrides it); an evaluator without one takes no judge.
    """

    kind: Literal["evaluator"] = "evaluator"
    judge: str | None = None
