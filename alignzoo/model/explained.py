"""Loading models: errors of transformers and peft in the user's terms, and no other output."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from alignzoo.base.hub import offline_hint
from alignzoo.errors import ModelError

SAFETENSORS_ONLY = "alignzoo reads weights from safetensors only: load .bin weights with {} and save them again"


@contextlib.contextmanager
def explained(
    path: str,
    what: str,
    *,
    expected: str = "a causal language model",
    hint: str = "alignzoo trains models of AutoModelForCausalLM",
) -> Iterator[None]:
    """Loading errors of transformers and peft in the user's terms.

    Args:
        what: what is being loaded.
        expected, hint: the expected kind of model, and the hint if it is another kind.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first = _first_sentence(error)
        if "Unrecognized configuration class" in first or "Unrecognized model" in first:
            raise ModelError(f"{path} is not {expected}", hint=hint) from error
        if "no file named model.safetensors" in first or "cannot be loaded with `safetensors`" in first:
            raise ModelError(
                f"cannot load the {what} of {path}: it has no model.safetensors",
                hint=SAFETENSORS_ONLY.format("transformers"),
            ) from error
        raise ModelError(
            f"cannot load the {what} of {path}: {first}",
            hint=offline_hint(first) or "check the path or hub id, and that the files are complete (`alignzoo doctor`)",
        ) from error


def _first_sentence(error: Exception) -> str:
    """The first line of an error's text; all lines if the first only introduces a list."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines) if lines[0].endswith(":") else lines[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the loading report and progress bars of transformers; ours says what matters."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # libraries warning each other about renamed arguments
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
