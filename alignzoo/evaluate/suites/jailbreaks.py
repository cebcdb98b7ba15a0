"""Jailbreaks: what a request is wrapped in before it is sent. Plugins provide them (hook ``alignzoo_jailbreaks``)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignzoo.contract.card import Extension
from alignzoo.errors import BrokenPluginError
from alignzoo.plugin.build import import_target
from alignzoo.plugin.guard import guarded
from alignzoo.plugin.registry import registry


@dataclass(frozen=True)
class Jailbreak:
    """A jailbreak that a plugin provides."""

    card: Extension

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def summary(self) -> str:
        return self.card.summary

    def apply(self, messages: Sequence[Mapping[str, str]], id: str, seed: int = 0) -> tuple[dict[str, str], ...]:
        """The conversation to send for a prompt; the same one for the same prompt, ``id`` and ``seed``.

        Raises:
            BrokenPluginError: it fails, or returns something other than a conversation that ends with the user.
        """
        with guarded(
            f"jailbreak {self.name!r} failed on prompt {id!r}", error=BrokenPluginError, hint="fix its plugin"
        ):
            function = import_target(self.card)
            given = [dict(message) for message in messages]
            wrapped = tuple(dict(message) for message in function(given, random.Random(f"{self.name}:{id}:{seed}")))
            fits = all(message.keys() == {"role", "content"} for message in wrapped)
            if not wrapped or not fits or wrapped[-1]["role"] != "user":
                raise ValueError("it must return messages of role and content, the last one the user's")
        return wrapped


def jailbreak_names() -> list[str]:
    """The jailbreaks of alignzoo and the installed plugins, by name."""
    return sorted({card.name for _, card in registry().extensions("jailbreak")})


def find_jailbreak(name: str) -> Jailbreak:
    """The jailbreak called ``name`` (or ``distribution:name``).

    Raises:
        UsageError: unknown, with the nearest names; or two plugins provide that name.
    """
    return Jailbreak(registry().find_extension("jailbreak", name))
