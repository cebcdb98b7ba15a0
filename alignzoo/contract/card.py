"""What a plugin declares: a method's card with its options model, and smaller cards for what is not a method.

A card is frozen and needs no torch, so listings, help and the resolver read it without loading what it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.fields import FieldInfo

from alignzoo.contract.values import Values

PLUGIN_API = 1
"""The version of the plugin contract this alignzoo speaks; what it promises is in docs/compatibility.md."""
OLDEST_PLUGIN_API = 1
"""The oldest version that still works. A card made for one outside this range is listed as broken."""

Need = Literal[
    "reference",
    "token-logps",
    "scores",
    "reward",
    "groups",
    "probe",
    "swap",
    "labels",
    "mismatched",
    "hidden-states",
    "vocabulary-statistics",
]
PROVIDED: frozenset[Need] = frozenset(
    {"reference", "token-logps", "scores", "reward", "groups", "probe", "swap", "labels", "mismatched"}
)
"""What the core can supply today; a method that needs anything else is refused by the resolver."""


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
TARGET = r"^[\w.]+:\w+$"
"""``package.module:attribute``."""


class Options(Values):
    """Base of every options model: unknown names are errors, values are frozen, numbers are finite.

    Each field carries its type, bounds, default and one line of help (``Field(0.1, gt=0, description=...)``); one that
    may be infinite or NaN says ``allow_inf_nan=True``.
    """

    def needs(self) -> frozenset[Need]:
        """What these particular values need beyond what the card states."""
        return frozenset()

    def couples(self) -> bool:
        """Whether these particular values make a loss or wrapper batch-coupled that is not so by its card."""
        return False


def is_path(field: FieldInfo) -> bool:
    """Whether an option names a file or folder: of type ``Path``, or with ``json_schema_extra={"path": True}``."""
    extra = field.json_schema_extra
    return field.annotation is Path or (isinstance(extra, dict) and bool(extra.get("path")))


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PluginAPIError(Exception):
    """A card was made for a plugin contract that this alignzoo does not speak."""


class _Declared(_Frozen):
    """What every card has: a name, a line about it, and the plugin contract it was written for (1 if it says none)."""

    name: Name
    summary: str
    api: int = 1

    @model_validator(mode="before")
    @classmethod
    def _speaks_our_api(cls, values: Any) -> Any:
        """Before all else: a card of another contract may well have fields that this one does not know."""
        api = values.get("api", 1) if isinstance(values, Mapping) else 1
        if isinstance(api, int) and not OLDEST_PLUGIN_API <= api <= PLUGIN_API:
            speaks = f"{OLDEST_PLUGIN_API} to {PLUGIN_API}" if OLDEST_PLUGIN_API < PLUGIN_API else str(PLUGIN_API)
            newer = api > PLUGIN_API
            raise PluginAPIError(
                f"{values.get('name')!r} is made for plugin API {api}, this alignzoo speaks {speaks}: "
                + ("upgrade alignzoo" if newer else "upgrade the plugin")
            )
        return values


class Paper(_Frozen):
    """Where a method was published."""

    title: str
    arxiv: str | None = None

    def __str__(self) -> str:
        return f"{self.title} (arXiv {self.arxiv})" if self.arxiv else self.title


class Verified(_Frozen):
    """One source the implementation was checked against, and the name of the test that does it."""

    against: str
    test: str


class Card(_Declared):
    """The facts that methods of every kind have; each kind adds its own, in a class of its own.

    ``Card(kind="loss", …)`` builds that class.

    Attributes:
        target: ``"package.module:Class"``, imported only when the method is built.
        formula: in the paper's symbols.
        needs: what the method reads beyond summed policy log-probs and lengths.
        expected_failures: rules of the contract (:mod:`alignzoo.testing`) that the method cannot keep, each with the
            reason; a rule that is kept after all fails as well.
    """

    kind: str
    target: str = Field(pattern=TARGET)
    options: type[Options] = Options
    formula: str
    paper: Paper | None = None
    needs: frozenset[Need] = frozenset()
    aliases: tuple[Name, ...] = ()
    verified: tuple[Verified, ...] = ()
    expected_failures: dict[str, Reason] = Field(default_factory=dict)

    def __new__(cls, **facts: Any) -> Card:
        if cls is Card:
            from alignzoo.contract.kinds import kind_of

            cls = kind_of(facts.get("kind")).card
        return super().__new__(cls)

    @field_validator("options")
    @classmethod
    def _every_option_has_help(cls, options: type[Options]) -> type[Options]:
        bare = [name for name, field in options.model_fields.items() if not field.description]
        if bare:
            raise ValueError(f"options without a description: {', '.join(bare)}")
        return options


class Composition(_Declared):
    """A published name for a combination of methods: ``--loss drdpo`` is ``--loss dpo --robust drdpo``."""

    kind: str = "loss"
    paper: Paper | None = None
    loss: str
    robust: tuple[str, ...] = ()
    geometry: str | None = None
    aliases: tuple[Name, ...] = ()

    def flags(self) -> str:
        """The command-line words the name stands for."""
        words = [f"--loss {self.loss}", *(f"--robust {name}" for name in self.robust)]
        if self.geometry:
            words.append(f"--geometry {self.geometry}")
        return " ".join(words)


ExtensionKind = Literal["recipe", "command", "observer", "format", "judge"]
EXTENSION_KINDS: tuple[ExtensionKind, ...] = get_args(ExtensionKind)


class Extension(_Declared):
    """Something a plugin brings that is not a method. ``target`` is imported only when it is used.

    ==========  ====================================================================================
    kind        what the target is
    ==========  ====================================================================================
    command     a ``click`` command: ``alignzoo NAME``
    observer    a subclass of :class:`alignzoo.observers.RunObserver`: ``--observe NAME``
    format      a :class:`alignzoo.data.formats.Layout`: ``--data.format NAME``
    judge       a function of a request and an answer that gives a verdict: ``--judge NAME``
    ==========  ====================================================================================
    """

    kind: Literal["command", "observer", "format", "judge"]
    target: str = Field(pattern=TARGET)
