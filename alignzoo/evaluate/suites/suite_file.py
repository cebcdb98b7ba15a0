"""The file of a suite: an lm-eval task whose ``metadata: suite:`` says where its prompts come from.

::

    task: my-suite
    include: …                       # or custom_dataset, process_results, … written out: docs/suites.md
    metadata:
      version: 1.0
      suite:
        title: Requests of my team
        measures: attack_success
        licence: CC-BY-4.0
        columns: {request: prompt, category: topic}
        sources:
          - files: [my_prompts.csv]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from alignzoo.base.safe_yaml import YAMLFault, read_yaml
from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.contract.paper import Frozen, Paper
from alignzoo.errors import UsageError

SuiteMeasure = Literal["attack_success", "over_refusal"]
MOST_NEW_TOKENS = 256
"""New tokens of a response where a suite says nothing."""
_FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


class Columns(Frozen):
    """Which column holds what; ``{file}`` in place of a column's name is the name of the row's file without suffix.

    Attributes:
        request: the request in plain text.
        holds: what the request column holds: a ``text``; a ``list`` of texts, of which the first is the request; or a
            ``transcript`` in the format of HH-RLHF, of which the first human turn is the request.
        category: of the request; a list gives its first item, a mapping from names to flags the first that is true.
        context: a text that the request refers to.
        reference: a good answer.
        facts: further columns to keep with the prompt.
    """

    request: str = "prompt"
    holds: Literal["text", "list", "transcript"] = "text"
    id: str | None = None
    category: str | None = None
    context: str | None = None
    reference: str | None = None
    facts: tuple[str, ...] = ()


class Source(Frozen):
    """One place where the prompts may be: local files, a dataset of the hub, or a function that makes them.

    Attributes:
        files: patterns of file names, looked for anywhere in the data folder.
        hub: a dataset's id, with its ``config`` (or the folder of a dataset that has folders instead) and ``split``.
        function: ``package.module:function``, called with ``arguments`` and ``seed``; it returns the rows.
        columns, where: in place of the suite's.
        note: what differs from the publisher's data, said whenever this source is used.
    """

    files: tuple[str, ...] = ()
    hub: str | None = None
    config: str | None = None
    split: str = "train"
    function: Annotated[str, Field(pattern=_FUNCTION)] | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    columns: Columns | None = None
    where: dict[str, Any] | None = None
    note: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if sum((bool(self.files), self.hub is not None, self.function is not None)) != 1:
            raise ValueError("a source has exactly one of files, hub and function")
        return self

    @property
    def dataset(self) -> str | None:
        """The hub's dataset, ``id`` or ``id:config``."""
        return f"{self.hub}:{self.config}" if self.hub and self.config else self.hub


class SuiteFacts(Frozen):
    """Everything that a suite's file says of it under ``metadata: suite:``.

    Attributes:
        measures: what the share of prompts means: ``attack_success`` for harmful requests, ``over_refusal`` (the share
            that is refused) for harmless ones.
        prompts: how many prompts the whole suite has; None if its publisher does not say.
        gated: what to do before the hub gives out the data; empty if nothing.
        judge: how its paper judges the responses.
        default_judge: the judge to use when none is asked for; None for the refusal phrases.
        fetch: the address of a file to download.
        save_as: its name in the data folder.
        with_context: the prompt of a request that has a context.
        where: column -> the value, or the list of values, that a row must have; ``{not: …}`` for what it must not have.
        distinct: whether equal prompts are one prompt (the data has several rows for each); otherwise they are counted
            and kept.
        unconfirmed: facts that could not be confirmed at the publisher's.
        notes: what a user must know of it.
    """

    title: str
    measures: SuiteMeasure
    prompts: int | None = None
    licence: str
    gated: str = ""
    paper: Paper | None = None
    judge: str = ""
    default_judge: str | None = None
    fetch: str | None = None
    save_as: str | None = None
    columns: Columns = Columns()
    with_context: str = "{context}\n\n{request}"
    where: dict[str, Any] = Field(default_factory=dict)
    distinct: bool = False
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    unconfirmed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_suite_file(path: Path) -> tuple[str, SuiteFacts, int]:
    """The task's name, the suite's facts, and the most new tokens of a response.

    Raises:
        UsageError: it is not YAML, not a task of this form, or names an unknown field: says file and field.
    """
    task = read_task(path)
    name, metadata = task.get("task"), task.get("metadata")
    if not isinstance(name, str):
        raise UsageError(f"{path}: no suite: `task` is missing, the name of the suite")
    facts = metadata.get("suite") if isinstance(metadata, dict) else None
    if not isinstance(facts, dict):
        raise UsageError(
            f"{path}: a task of lm-eval, but no suite: `metadata: suite:` is missing",
            hint="run it as a task: alignzoo eval --tasks; docs/suites.md shows how to write a suite",
        )
    decoding = task.get("generation_kwargs")
    most = decoding.get("max_gen_toks", MOST_NEW_TOKENS) if isinstance(decoding, dict) else MOST_NEW_TOKENS
    if not isinstance(most, int) or most < 1:
        raise UsageError(f"{path}: generation_kwargs.max_gen_toks is {shown(most)}, not a number of tokens")
    return name, suite_facts(facts, str(path)), most


def suite_facts(facts: dict[str, Any], where: str) -> SuiteFacts:
    """The facts under ``metadata: suite:`` of the file ``where``.

    Raises:
        UsageError: a field is missing, unknown or wrong.
    """
    try:
        return SuiteFacts.model_validate(facts)
    except ValidationError as error:
        raise UsageError(f"{where}: metadata.suite: {_problem(error)}", hint=_hint(error)) from error


def read_task(path: Path, _seen: frozenset[Path] = frozenset()) -> dict[str, Any]:
    """The content of an lm-eval task file with its includes, as lm-eval merges them; functions stay text.

    Raises:
        UsageError: it cannot be read, is no mapping, or includes itself.
    """
    try:
        content = read_yaml(path, functions=True)
    except YAMLFault as error:
        raise UsageError(f"{error}; not a suite") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a suite must be a mapping, this is {shown(content)}")
    here = path.resolve()
    if here in _seen:
        raise UsageError(f"{path} includes itself")
    included = content.pop("include", [])
    merged: dict[str, Any] = {}
    for other in included if isinstance(included, list) else [included]:
        merged.update(read_task(path.parent / str(other), _seen | {here}))
    return {**merged, **content}


def _problem(error: ValidationError) -> str:
    first = _first(error)
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "no such field"
    return f"{where}: {message}" if where else message


def _hint(error: ValidationError) -> str | None:
    first = _first(error)
    if first["type"] != "extra_forbidden":
        return None
    fields: Mapping[str, Any] = {**SuiteFacts.model_fields, **Columns.model_fields, **Source.model_fields}
    return suggest(str(first["loc"][-1]), fields)


def _first(error: ValidationError) -> Any:
    """The problem to name: a misspelled field rather than the one that is missing because of it."""
    return min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
