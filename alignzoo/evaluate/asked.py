"""What a model is asked: a suite's prompts, inside a jailbreak or as they are, and how the responses are decoded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.errors import DataError
from alignzoo.evaluate.suites.jailbreaks import Jailbreak
from alignzoo.evaluate.suites.suite import Prompt, Suite
from alignzoo.generate.decoding import Decoding


@dataclass(frozen=True)
class Asked:
    """A suite as it is put to a model.

    Attributes:
        jailbreak: the name of the one around the prompts.
        prompts: what is sent, jailbreak included.
        origin: where the prompts were found.
        notes: what a reader of the figures must know of them.
    """

    suite: Suite
    jailbreak: str | None
    prompts: tuple[Prompt, ...]
    decoding: Decoding
    origin: str = ""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``SUITE`` or ``SUITE+JAILBREAK``."""
        return self.suite.name if self.jailbreak is None else f"{self.suite.name}+{self.jailbreak}"

    @property
    def digest(self) -> str:
        """A hash of the prompts as they are sent, 64 hex digits."""
        parts = [self.suite.measures, [[prompt.id, list(prompt.messages)] for prompt in self.prompts]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Sampling:
    """How responses are decoded, as asked on a command line; None leaves it to the suite."""

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def decoding(self, suite: Suite) -> Decoding:
        """For the prompts of one suite. Greedy decoding depends neither on the seed nor on ``top_p``.

        Raises:
            UsageError: a value out of its range.
        """
        most = suite.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens
        found = Decoding(most, self.temperature, self.top_p, seed=self.seed)
        return replace(found, seed=0, top_p=1.0) if found.greedy else found


def ask(
    suites: Sequence[Suite],
    jailbreaks: Sequence[Jailbreak] = (),
    *,
    data_dir: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
) -> list[Asked]:
    """The prompts of some suites: each as they are, or, of harmful ones, in each of the jailbreaks.

    A suite of harmless requests is asked as it is: a jailbreak has nothing to break there.

    Args:
        limit: only the first prompts of each suite.
        seed: of prompts that are generated, and of jailbreaks.

    Raises:
        DataError: a suite's data is missing (it says what to fetch and where to put it), or has no prompts.
        BrokenPluginError: a jailbreak fails.
    """
    found = []
    for suite in suites:
        loaded = suite.load(data_dir, limit, seed)
        if not loaded.prompts:
            raise DataError(f"suite {suite.name} has no prompts in {loaded.origin}", hint="fetch its data again")
        decoding = (sampling or Sampling(seed=seed)).decoding(suite)
        around = jailbreaks if suite.measures == "attack_success" else ()
        for jailbreak in around or (None,):
            prompts = tuple(_wrapped(prompt, jailbreak, seed) for prompt in loaded.prompts)
            name = None if jailbreak is None else jailbreak.name
            found.append(Asked(suite, name, prompts, decoding, loaded.origin, tuple(loaded.notes)))
    return found


def _wrapped(prompt: Prompt, jailbreak: Jailbreak | None, seed: int) -> Prompt:
    if jailbreak is None:
        return prompt
    return replace(prompt, messages=jailbreak.apply(prompt.messages, prompt.id, seed))


def decoding_facts(decoding: Decoding) -> dict[str, Any]:
    """Decoding as it is written to files."""
    return {**asdict(decoding), "until": list(decoding.until)}
