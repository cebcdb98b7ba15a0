"""The longest text a model can read, and the lengths of a run within that."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from alignzoo.errors import UsageError
from alignzoo.model.explained import quiet
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import FITTED
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter

_SPARE = 2
"""Extra rows that a position table may have (OPT, BART)."""


def stated_positions(config: Any) -> int | None:
    """The number of positions a model is designed for, from its config; None if it has none."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def has_position_table(config: Any, *, trust_remote_code: bool = False) -> bool:
    """Whether a model looks positions up in a table, as GPT-2 and OPT do, and so has none beyond it.

    Computed positions (RoPE, ALiBi) are unlimited. The model is built without weights, and its tables other than the
    word embeddings are compared with the number of positions.
    """
    positions = stated_positions(config)
    if positions is None:
        return False
    with contextlib.suppress(Exception), quiet(), torch.device("meta"):  # loading gives a better error
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        words = model.get_input_embeddings()
        learned = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not words]
        tables = [table for table in (*learned, *model.buffers()) if table.dim() == 2]
        return any(positions <= len(table) <= positions + _SPARE for table in tables)
    return False


def within_positions(settings: Settings, config: Any, report: Reporter) -> Settings:
    """The settings with a ``--max-length`` within the model's positions: the default is lowered.

    Raises:
        UsageError: one of the two lengths was set explicitly and exceeds the model's positions.
    """
    positions = stated_positions(config)
    if positions is None or settings.max_length <= positions:
        return settings
    if not has_position_table(config, trust_remote_code=settings.trust_remote_code):
        return settings
    given = settings.model_fields_set
    for name, least in (("max_length", positions), ("max_prompt_length", positions - 1)):
        value = getattr(settings, name)
        if name in given and value > least:
            flag = Settings.flag(name)
            raise UsageError(
                f"--{flag} {value}: {settings.model} has {positions} positions, so longer texts do not fit",
                hint=f"give --{flag} {least} or less",
            )
    report.note(f"--max-length is lowered to {positions}: {settings.model} has no more positions")
    return Settings.model_validate({**settings.model_dump(exclude_unset=True), "max_length": positions})


def fitted(plan: Plan, config: Any, report: Reporter) -> Plan:
    """The plan, with its settings :func:`within_positions`."""
    settings = within_positions(plan.settings, config, report)
    if settings is plan.settings:
        return plan
    return replace(plan, settings=settings, origins={**plan.origins, "max_length": FITTED})


def warn_beyond_positions(config: Any, longest: int, report: Reporter) -> None:
    """Warn if rows are longer than the positions a model is designed for.

    Args:
        longest: tokens of the longest prompt and response.
    """
    positions, rope = stated_positions(config), getattr(config.get_text_config(), "rope_parameters", None)
    if positions is None or longest <= positions or not isinstance(rope, dict):
        return
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if {kind["rope_type"] for kind in kinds if "rope_type" in kind} <= {"default"}:
        report.warn(
            f"rows have up to {longest} tokens, but the model is designed for {positions}: log-probs may be poor "
            f"beyond that; --max-length {positions} truncates responses there"
        )
