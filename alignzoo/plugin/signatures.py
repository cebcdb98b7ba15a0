"""Whether a class takes the arguments that its kind's methods are called with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from alignzoo.plugin.blame import place_of

_ABSENT = object()


def misfit(target: Any, base: type) -> str | None:
    """What is wrong with the signature of a method of ``base`` that a class redefines, with file and line; or None."""
    for name, expected in _called(base) if isinstance(target, type) else ():
        given = _defined(target, name)
        if given is _ABSENT or given is _defined(base, name):
            continue
        function = getattr(given, "__func__", given)
        if not callable(function):
            return f"`{name}` is a {type(given).__name__}, expected {_written(name, expected)}"
        parameters = _parameters(function, bound=not isinstance(given, staticmethod))
        if parameters is None:
            continue
        try:
            parameters.bind(*expected.parameters)
        except TypeError:
            found = _written(name, parameters)
            return f"{found} cannot be called as {_written(name, expected)}{place_of(function)}"
    return None


def _called(base: type) -> Iterator[tuple[str, inspect.Signature]]:
    """Every public method of a base class, with its signature."""
    for name in dict.fromkeys(name for owner in base.__mro__[:-1] for name in vars(owner)):
        function = _defined(base, name)
        if inspect.isfunction(function) and (name == "__call__" or not name.startswith("_")):
            parameters = _parameters(function, bound=True)
            assert parameters is not None
            yield name, parameters


def _defined(owner: type, name: str) -> Any:
    """An attribute of a class as its body defines it, not that of its metaclass."""
    return next((vars(one)[name] for one in owner.__mro__ if name in vars(one)), _ABSENT)


def _parameters(function: Any, *, bound: bool) -> inspect.Signature | None:
    """The parameters that a caller fills; None where Python cannot say."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return None
    every = list(signature.parameters.values())
    takes_self = bound and every and every[0].kind is not inspect.Parameter.VAR_POSITIONAL
    return signature.replace(parameters=every[1:] if takes_self else every)


def _written(name: str, signature: inspect.Signature) -> str:
    """``metrics(losses, pairs)``, without annotations."""
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return f"{name}{inspect.Signature(bare)}"
