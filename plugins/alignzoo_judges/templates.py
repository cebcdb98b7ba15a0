"""Templates that show a judge a request and its response."""

from __future__ import annotations

import re

from alignzoo.base.files import local_path
from alignzoo.base.suggest import suggest
from alignzoo.contract.judge import Answered
from alignzoo.errors import DataError, UsageError

PLACEHOLDERS = ("request", "response", "context", "reference")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def read_template(given: str, flag: str) -> str:
    """A template by its text or by the file that has it.

    Args:
        flag: the option that it was given to, for messages.

    Raises:
        DataError: the file cannot be read.
        UsageError: an unknown placeholder, or no ``{response}``.
    """
    text = given
    if not _PLACEHOLDER.search(given):
        try:
            text = local_path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise DataError(
                f"{flag} {given!r} has no placeholder, and no file of that name can be read: {error}",
                hint=f"placeholders: {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}",
            ) from error
    unknown = [name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS]
    if unknown:
        raise UsageError(
            f"{flag}: the template has an unknown placeholder {{{unknown[0]}}}",
            hint=suggest(unknown[0], PLACEHOLDERS) or f"it can have: {', '.join(PLACEHOLDERS)}",
        )
    if "{response}" not in text:
        raise UsageError(f"{flag}: the template does not show the response", hint="put {response} where it goes")
    return text


def filled(template: str, answer: Answered) -> str:
    """A template with the texts of a response in it; what the response lacks is empty."""
    return _PLACEHOLDER.sub(lambda match: str(getattr(answer, match[1]) or ""), template)
