"""A suite as a task of lm-eval: its file names :func:`dataset` as ``custom_dataset``.

``lm_eval run --tasks SUITE --include_path "$(alignzoo suites path)" --metadata '{"data_dir": "DIR"}'``
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.base.files import local_path
from alignzoo.errors import UsageError
from alignzoo.evaluate.suites.jailbreaks import find_jailbreak
from alignzoo.evaluate.suites.readers import load
from alignzoo.evaluate.suites.suite import data_folders
from alignzoo.evaluate.suites.suite_file import suite_facts


def dataset(
    *,
    suite: Mapping[str, Any],
    config_source: str = "",
    data_dir: str | None = None,
    jailbreak: str | None = None,
    seed: int = 0,
    **_others: Any,
) -> dict[str, Any]:
    """The prompts as lm-eval reads them: one split ``test`` with the columns ``id``, ``prompt``, ``request``,
    ``category``, ``measures`` and ``facts`` (JSON).

    Args:
        suite: the task's ``metadata: suite:``.
        config_source: the task's file; ``inline`` if lm-eval was given the file instead of its name.
        data_dir, jailbreak, seed: from ``--metadata``.
        _others: the rest of the task's metadata, and the model's arguments, which lm-eval passes on as well.

    Raises:
        DataError: the data is not there, or malformed.
        UsageError: the jailbreak is unknown, or makes a conversation of several turns.
    """
    from datasets import Dataset

    facts = suite_facts(dict(suite), config_source)
    name = Path(config_source).stem if config_source.endswith(".yaml") else facts.title
    wrap = None if jailbreak is None else find_jailbreak(jailbreak)
    rows = []
    for prompt in load(name, facts, data_folders(None if data_dir is None else local_path(data_dir)), seed).prompts:
        messages = prompt.messages if wrap is None else wrap.apply(prompt.messages, prompt.id)
        if len(messages) != 1:
            raise UsageError(
                f"jailbreak {jailbreak!r} makes conversations of {len(messages)} messages; a task of lm-eval has one",
                hint=f"alignzoo eval MODEL --suite {name} --jailbreak {jailbreak}",
            )
        rows.append(
            {
                "id": prompt.id,
                "prompt": messages[0]["content"],
                "request": prompt.request,
                "category": prompt.category,
                "measures": facts.measures,
                "facts": json.dumps(prompt.facts, default=str),
            }
        )
    return {"test": Dataset.from_list(rows)}


def outcome(doc: Mapping[str, Any], refuses: bool) -> dict[str, float]:
    """The suite's metric for one response, as lm-eval's ``process_results`` returns it."""
    over_refusal = doc["measures"] == "over_refusal"
    return {doc["measures"]: float(refuses if over_refusal else not refuses)}
