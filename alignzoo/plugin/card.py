"""What a method declares: its card, and the options model that becomes its flags, bounds, defaults and help.

A card is frozen and needs no torch, so listings, help and the resolver read it without loading the method.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

PLUGIN_API = 1
"""The version of the plugin contract this alignzoo speaks. A card made for a newer one is listed as broken."""

Kind = Literal["loss", "robust", "geometry"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Need = Literal[
    "reference",
    "token-logps",
    "scores",
    "groups",
    "probe",
    "hidden-states",
    "vocabulary-statistics",
]
PROVIDED: frozenset[Need] = frozenset({"reference", "token-logps", "scores", "groups", "probe"})
"""What the core can supply today; a method that needs anything else is refused by the resolver."""


class Options(BaseModel):
    """Base of every options model: unknown names are errors, values are frozen.

    Each field carries its type, bounds, default and one line of help (``Field(0.1, gt=0, description=...)``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def needs(self) -> frozenset[Need]:
        """What these particular values need beyond what the card states."""
        return frozenset()


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class Card(_Frozen):
    """The facts of one method.

    Attributes:
        target: ``"package.module:Class"``, imported only when the method is built.
        formula: the value per pair (loss), the objective (robust) or the step (geometry), in the paper's symbols.
        needs: what the method reads beyond summed policy log-probs and lengths.
        batch_coupled: a pair's value or weight depends on the other pairs of the step.
        aggregates: a wrapper with an :meth:`objective` of its own in place of the mean; a run has room for one.
        passes: forward-backward passes a step takes at the most.
        api: the plugin contract the card was written for.
    """

    kind: Kind
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    target: str = Field(pattern=r"^[\w.]+:\w+$")
    options: type[Options] = Options
    summary: str
    formula: str
    paper: Paper | None = None
    needs: frozenset[Need] = frozenset()
    batch_coupled: bool = False
    aggregates: bool = False
    passes: int = Field(1, ge=1)
    aliases: tuple[str, ...] = ()
    api: int = PLUGIN_API
    verified: tuple[Verified, ...] = ()

    @field_validator("options")
    @classmethod
    def _every_option_has_help(cls, options: type[Options]) -> type[Options]:
        bare = [name for name, field in options.model_fields.items() if not field.description]
        if bare:
            raise ValueError(f"options without a description: {', '.join(bare)}")
        return options


class Composition(_Frozen):
    """A published name for a combination of methods: ``--loss drdpo`` is ``--loss dpo --robust drdpo``."""

    kind: Kind = "loss"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: str
    paper: Paper | None = None
    loss: str
    robust: tuple[str, ...] = ()
    geometry: str | None = None
    aliases: tuple[str, ...] = ()
    api: int = PLUGIN_API

    def flags(self) -> str:
        """The command-line words the name stands for."""
        words = [f"--loss {self.loss}", *(f"--robust {name}" for name in self.robust)]
        if self.geometry:
            words.append(f"--geometry {self.geometry}")
        return " ".join(words)
