"""The sections of a run's model card: method, data, training, results, limits, reproduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo.contract.kinds import KINDS
from alignzoo.plan.plan import Method
from alignzoo_export.card_evaluation import evaluation_section, not_measured
from alignzoo_export.markdown import block, bullets, code, table, text
from alignzoo_export.run_facts import Collected, RunFacts, outcome, short_name

_TRAINING = (
    "epochs",
    "batch-size",
    "lr",
    "schedule",
    "warmup-steps",
    "optimizer",
    "weight-decay",
    "max-grad-norm",
    "max-length",
    "max-prompt-length",
    "precision",
    "lora.r",
    "lora.alpha",
    "quantize",
    "seed",
)
"""The settings that the card states, where they are set."""


def run_sections(run: RunFacts, facts: Mapping[str, Any]) -> list[str]:
    """All sections of a run in their order, each a heading or a text."""
    found = outcome(run)
    return [
        "## Method",
        _method(run),
        "## Data",
        _data(run),
        "## Training",
        _training(run),
        "## Results",
        _results(run, found),
        "## Limits",
        bullets(_limits(run, found)),
        "## How to reproduce",
        _reproduce(run, facts),
    ]


def _method(run: RunFacts) -> str:
    if run.plan is None:
        return f"As words of a command line: {code(run.content.get('sentence'))}"
    rows = [_method_row(method) for method in run.methods]
    return table(["", "method", "what it does", "formula", "options"], rows)


def _method_row(method: Method) -> list[str]:
    card = method.card
    paper = card.paper
    name = f"[{text(card.name)}]({paper.link})" if paper is not None and paper.link else text(card.name)
    options = ", ".join(f"{name}={value}" for name, value in method.options.model_dump(mode="json").items())
    weight = f"weight={method.weight:g}" if method.weight != 1 else ""
    described = ", ".join(filter(None, [weight, options]))
    return [KINDS[card.kind].noun, name, text(card.summary), code(card.formula), code(described)]


def _data(run: RunFacts) -> str:
    rows = []
    for part, summary in run.data.items():
        if not isinstance(summary, dict) or "source" not in summary:  # of the selectors, and of the training rows
            continue
        split = f" ({text(summary['split'])})" if summary.get("split") else ""
        dropped = "; ".join(f"{text(reason)}: {entry['count']}" for reason, entry in summary["dropped"].items())
        counted = "; ".join(f"{text(what)}: {count}" for what, count in summary["counted"].items() if count)
        rows.append(
            [
                text(part),
                code(short_name(summary["source"])) + split,
                f"{summary['rows']:,}",
                f"{summary['kept']:,}",
                dropped or "none",
                counted or "–",
            ]
        )
    parts = [table(["part", "source", "rows read", "kept", "dropped", "also counted"], rows)] if rows else []
    if run.result is not None:
        used = ", ".join(f"{count:,} {text(name.replace('_', '-'))}" for name, count in run.result.pairs.items())
        parts.append(f"After the split by prompt: {used}.")
    noise = run.values.get("label-noise") or 0
    parts.append(
        f"Label noise: {noise:.0%} of the training labels were exchanged on purpose (`--label-noise`)."
        if noise
        else "No label noise was added."
    )
    for did in run.data.get("selection", []):
        parts.append(f"Selected: {text(did)}")
    return "\n\n".join(parts)


def _training(run: RunFacts) -> str:
    values = run.values
    idle = {"lora.r", "lora.alpha"} if not values.get("lora.r") else set()
    stated = (name for name in _TRAINING if values.get(name) is not None and name not in idle)
    rows = [[code(name), code(values[name])] for name in stated]
    if run.result is not None:
        rows = [["optimizer steps", f"{run.result.steps:,}"], ["tokens", f"{run.result.tokens:,}"], *rows]
    return table(["setting", "value"], rows)


def _results(run: RunFacts, found: Collected) -> str:
    parts = []
    for title, columns, rows in found.tables:
        header = [text(column) or " " for column in columns]
        parts.append(f"**{text(title)}**\n\n" + table(header, [[text(cell) for cell in row] for row in rows]))
    if run.evaluation is not None:
        parts.append(evaluation_section(run.evaluation))
    parts += [f"> **Warning.** {text(warning)}" for warning in found.warnings]
    return "\n\n".join(parts) or "Nothing was evaluated."


def _limits(run: RunFacts, found: Collected) -> list[str]:
    """What the facts do not show, from the facts."""
    values, methods = run.values, run.methods
    held_out = run.result.pairs.get("held_out", 0) if run.result is not None else 0
    evaluators = [title for title, _, _ in found.tables if not title.startswith("held-out")]
    experimental = [
        f"{method.card.name} ({method.card.experimental})" for method in methods if method.card.experimental
    ]
    unverified = [method.card.name for method in methods if not method.card.verified]
    limits = [
        f"One run with one seed ({values.get('seed')}): differences of the size that another seed makes cannot be told "
        "from effects.",
        f"Held-out figures are from {held_out:,} {_held_out_source(run)}."
        if held_out
        else "Nothing was held out, so there are no figures on unseen rows.",
    ]
    if evaluators:
        named = ", ".join(text(title) for title in evaluators)
        limits.append(
            f"Generated responses during the run were judged by the evaluator {named} only, on its own prompts."
        )
    limits += not_measured(run.evaluation, judged=bool(evaluators))
    if found.warnings:
        limits.append("See the warning under *Results*.")
    if experimental:
        limits.append(f"Experimental methods: {text('; '.join(experimental))}.")
    if unverified:
        limits.append(f"Methods without a check against another implementation: {text(', '.join(unverified))}.")
    return limits


def _held_out_source(run: RunFacts) -> str:
    summary = run.data.get("eval")
    if summary is None:
        return "rows split off the training data by prompt"
    return f"rows of {code(short_name(summary['source']))}"


def _reproduce(run: RunFacts, facts: Mapping[str, Any]) -> str:
    environment = run.environment
    versions = {"alignzoo": environment.get("alignzoo"), "python": environment.get("python")}
    versions |= environment.get("versions") or {}
    rows = [[text(name), code(version)] for name, version in versions.items() if version]
    parts = [
        block(run.command(), "sh"),
        table(["software", "version"], rows) if rows else "",
        bullets(_identities(run, facts)),
    ]
    return "\n\n".join(filter(None, parts))


def _identities(run: RunFacts, facts: Mapping[str, Any]) -> Sequence[str]:
    device, ranks = run.environment.get("device"), run.environment.get("ranks")
    lines = [f"Trained on {text(device)} with {ranks} process{'es' if ranks != 1 else ''}."] if device else []
    if run.result is not None:
        lines.append(f"Training rows and labels, in order: {code(run.result.train_identity)}")
        lines.append(f"Weights at the end of the run: {code(run.result.weights)}")
    lines.append(f"Weights in this folder ({facts['dtype']}): {code(facts['weights'])}")
    return lines
