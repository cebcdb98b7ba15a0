"""The words of a sweep: axes and their values as typed on a command line or written in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo.base.shown import shown
from alignzoo.contract.card import NONE
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import UsageError
from alignzoo.plan.recipe import Layer

KEYS = ("grid", "zip", "exclude", "seeds")
"""What a recipe may say about a sweep, beside the words of a run."""


def axis_word(word: str) -> str:
    """The word of an axis as plans have it: ``label_noise`` is ``label-noise``."""
    word = word.strip().removeprefix("--")
    return word if word.partition(".")[0] in KINDS else word.replace("_", "-")


def axis_value(word: str, value: Any) -> Any:
    """A value of an axis: numbers as such, ``a+b`` of methods as a list, and ``none`` of a stack as an empty one."""
    kind = KINDS.get(word)
    if kind is None:
        return _number(value) if isinstance(value, str) and not word.startswith(("model", "data")) else value
    if kind.multiplicity == "stack":
        if value is None or value == NONE or value == [NONE]:
            return []
        value = value.split("+") if isinstance(value, str) else value
        return value if isinstance(value, list) else [value]
    if kind.several and isinstance(value, str) and "+" in value:
        return value.split("+")
    return value


def _number(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def typed_axes(texts: Sequence[str], flag: str) -> dict[str, list[Any]]:
    """The axes of ``--grid WORD=V1,V2`` or ``--zip WORD=V1,V2``.

    Raises:
        UsageError: it has no ``=``, or names a word twice.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        word, equals, values = text.partition("=")
        if not equals or not word.strip() or not values.strip():
            raise UsageError(f"{flag} {text}: not WORD=VALUE,VALUE", hint=f"for example {flag} geometry=plain,sam")
        word = axis_word(word)
        if word in axes:
            raise UsageError(f"{flag} names {word} twice", hint=f"list all its values: {flag} {word}=VALUE,VALUE")
        axes[word] = [axis_value(word, value.strip()) for value in values.split(",")]
    return axes


def typed_exclusion(text: str) -> dict[str, Any]:
    """The combination of ``--exclude WORD=VALUE,WORD=VALUE``.

    Raises:
        UsageError: it is none.
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        word, equals, value = part.partition("=")
        if not equals:
            raise UsageError(
                f"--exclude {text}: {shown(part)} is not WORD=VALUE", hint="for example --exclude loss=dpo,geometry=sam"
            )
        found[axis_word(word)] = axis_value(axis_word(word), value.strip())
    return found


def typed_seeds(text: str) -> tuple[int, ...]:
    """The seeds of ``--seeds 5`` (0 to 4) or ``--seeds 0,3,8``.

    Raises:
        UsageError: it is neither.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or ("," not in text and numbers == [0]):
        raise UsageError(
            f"--seeds {text}: neither a count nor a list of seeds", hint="--seeds 5 stands for --seeds 0,1,2,3,4"
        )
    return tuple(numbers) if "," in text else tuple(range(numbers[0]))


def written(layer: Layer) -> tuple[Layer, dict[str, Any]]:
    """A recipe without what it says about a sweep; and that, by :data:`KEYS`.

    Raises:
        UsageError: it is not of the form ``grid: {word: [value, …]}``, ``exclude: [{word: value}]``, ``seeds: 5``.
    """
    run: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for key, value in layer.values.items():
        head, _, word = key.partition(".")
        if head in ("grid", "zip"):
            if not word or not isinstance(value, list):
                raise UsageError(f"{layer.origin}: {key} is {shown(value)}, not a list of values", hint=_FORM)
            found.setdefault(head, {})[axis_word(word)] = [axis_value(axis_word(word), one) for one in value]
        elif key == "exclude":
            found[key] = [_exclusion(one, layer.origin) for one in (value if isinstance(value, list) else [value])]
        elif key == "seeds":
            found[key] = typed_seeds(",".join(map(str, value)) + "," if isinstance(value, list) else str(value))
        else:
            run[key] = value
    return Layer(layer.origin, run, layer.notes, layer.stages), found


_FORM = "write `grid: {loss: [dpo, simpo], label-noise: [0, 0.2]}`"


def _exclusion(value: Any, origin: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{origin}: exclude has {shown(value)}, not a combination", hint="write `exclude: [{loss: dpo, lr: 0.1}]`"
        )
    return {axis_word(word): axis_value(axis_word(word), one) for word, one in value.items()}
