"""A run's introduction: a few lines about what it will do, before anything heavy is loaded."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from alignzoo.plan.plan import Method, Plan
from alignzoo.plan.settings import Settings

WIDTH = 80
MAIN_OPTIONS = 4
"""Number of options that are always shown per method: the first ones, usually the most important."""
_STEPS = {"max_steps", "epochs", "batch_size", "micro_batch_size", "tokens_per_micro_batch"}
_ELSEWHERE = {"model", "data", "out", "seed"} | _STEPS
_ALWAYS = ("lr",)


def introduction(plan: Plan, folder: Path) -> list[str]:
    """The plan's notes; methods, model, data, steps, what is not a default, seed and folder, :data:`WIDTH` wide."""
    settings = plan.settings
    facts: list[tuple[str, str]] = [(method.card.kind, _in_words(method)) for method in plan.all_methods]
    facts += [("model", settings.model), ("data", settings.data), ("steps", _steps(settings))]
    shown = [name for name in type(settings).model_fields if name in _ALWAYS or name in plan.origins]
    stated = [_stated(Settings.flag(name), getattr(settings, name)) for name in shown if name not in _ELSEWHERE]
    facts += [("settings", ", ".join(stated)), ("seed", str(settings.seed)), ("folder", str(folder))]
    width = max(len(name) for name, _ in facts) + 2
    return [*plan.notes, *(line for name, text in facts for line in _wrapped(name.ljust(width), text))]


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=name,
        subsequent_indent=" " * len(name),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _in_words(method: Method) -> str:
    """Name, summary, the options that come first and those that were given."""
    options = type(method.options).model_fields
    shown = [name for i, name in enumerate(options) if i < MAIN_OPTIONS or name in method.options.model_fields_set]
    stated = ", ".join(_stated(name, getattr(method.options, name)) for name in shown)
    stated += ", …" if len(shown) < len(options) else ""
    return f"{method.card.name}: {method.card.summary}" + (f" ({stated})" if stated else "")


def _steps(settings: Settings) -> str:
    if settings.max_steps is not None:
        number = f"at most {settings.max_steps}" if settings.epochs is not None else str(settings.max_steps)
    else:
        passes = 1.0 if settings.epochs is None else settings.epochs
        number = f"{passes:g} {'pass' if passes == 1 else 'passes'} over the training rows, steps"
    cut = f"at most {settings.tokens_per_micro_batch} tokens" if settings.tokens_per_micro_batch else None
    return f"{number} of {settings.batch_size} rows, {cut or f'{settings.micro_batch_size} rows'} per forward pass"


def _stated(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, tuple):
        return f"{name} {','.join(map(str, value)) or 'none'}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {'none' if value is None else value}"
