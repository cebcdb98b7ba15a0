"""Around third-party code: whatever goes wrong there becomes an error that says whose it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from alignzoo.errors import AlignzooError, MethodError, contained
from alignzoo.plugin.blame import place_in
from alignzoo.plugin.faults import describe_error

FOR_THE_TRACEBACK = "run again with --debug for the traceback"


@contextmanager
def guarded(
    what: str,
    *,
    error: type[AlignzooError] = MethodError,
    hint: str = FOR_THE_TRACEBACK,
    passes: tuple[type[Exception], ...] = (AlignzooError,),
    packages: Collection[str] = (),
) -> Iterator[None]:
    """Turn what comes out of the block into an ``error`` that says ``what`` failed and why.

    Args:
        passes: exceptions that come out unchanged: by default third-party code's own refusals.
        packages: top-level packages whose innermost file and line the message names.
    """
    try:
        with contained():
            yield
    except passes:
        raise
    except Exception as raised:
        place = place_in(raised, packages)
        raise error(f"{what}: {describe_error(raised)}{place}", hint=hint) from raised
