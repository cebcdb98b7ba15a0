"""Suites of prompts, one lm-eval task file each, and jailbreaks."""

from pathlib import Path

from alignzoo.plugin import Extension, hookimpl

_JAILBREAKS = {
    "base64": "the request in Base64 (Wei et al. 2023)",
    "combination-1": "prefix injection, refusal suppression and Base64 (Wei et al. 2023)",
    "combination-2": "combination-1 with style injection (Wei et al. 2023)",
    "leetspeak": "the request with digits for some letters (Wei et al. 2023)",
    "multi-turn": "the request after two harmless turns with fixed answers (after Crescendo, 2024)",
    "prefix-injection": "asks for an answer that begins with agreement (Wei et al. 2023)",
    "refusal-suppression": "forbids the words that refusals are made of (Wei et al. 2023)",
    "role-play": "the request as a line of a play whose other part has no rules (after DAN, Shen et al. 2023)",
    "rot13": "the request with each letter moved by 13 (Wei et al. 2023)",
    "style-injection": "asks for a style in which trained refusals do not occur (Wei et al. 2023)",
}


@hookimpl
def alignzoo_suites() -> list[Path]:
    """The task files."""
    return sorted((Path(__file__).parent / "suites").glob("*.yaml"))


@hookimpl
def alignzoo_jailbreaks() -> list[Extension]:
    """Jailbreaks of one prompt."""
    return [
        Extension(
            kind="jailbreak",
            name=name,
            target=f"{__name__}.jailbreaks:{name.replace('-', '_')}",
            summary=summary,
        )
        for name, summary in _JAILBREAKS.items()
    ]
