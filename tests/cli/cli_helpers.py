"""Types of the fixtures here, and the text of plugins."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Az = Callable[..., subprocess.CompletedProcess[str]]
AddPlugin = Callable[[str, str], Path]


def plugin_source(*cards: str, **names: Any) -> str:
    """The text of a plugin module that brings these cards."""
    return (
        "from typing import Literal\n"
        "from pydantic import Field\n"
        "from alignzoo.plugin import Card, Options, hookimpl\n\n"
        "class Choices(Options):\n"
        '    width: int = Field(3, ge=1, le=9, description="how wide")\n'
        '    mode: Literal["hard", "soft"] = Field("soft", description="which way")\n'
        '    keep: bool = Field(False, description="keep what was there")\n\n'
        "@hookimpl\n"
        "def alignzoo_methods():\n"
        f"    return [{', '.join(cards)}]\n"
    )


def card_source(kind: str, name: str, **attributes: Any) -> str:
    """The text of a card whose class does not exist."""
    facts = {"kind": kind, "name": name, "target": "absent_module:Absent", "summary": f"{name} here", "formula": "x"}
    words = [f"{key}={value!r}" for key, value in {**facts, **attributes}.items()]
    return f"Card({', '.join(words)}, options=Choices)"
