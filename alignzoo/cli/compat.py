"""``alignzoo compat``: whether methods can be combined, why, and at what cost."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, get_args

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.cli.data_read import data_read
from alignzoo.cli.failures import problem_dict
from alignzoo.cli.flags import PlanCommand, plan_layers, recipe_option, run_options
from alignzoo.contract.card import Card, Need
from alignzoo.contract.kinds import KINDS
from alignzoo.distributed.launch import distributed_backend
from alignzoo.errors import AlignzooError
from alignzoo.plan.plan import Method, Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo.plan.settings import EMBEDDED
from alignzoo.plugin.registry import registry

NEEDS: dict[Need, str] = {
    "reference": "reference log-probs: computed once before training, without gradients (or in every step)",
    "token-logps": "per-token log-probs of the responses, not only their sum",
    "scores": "a score for each response, from the data's columns or another --reward",
    "reward": "a score for each response from the run's reward, computed once before training",
    "groups": "a group for each row of the data",
    "probe": "a safety probe, trained before the first step",
    "swap": "the loss under the opposite label, so a loss that is defined there",
    "labels": "a label for each response: paired or unpaired data",
    "mismatched": "responses to other prompts, to estimate the KL to the reference",
    "safety": "a safety label for each response, from the data's columns",
    "hidden-states": "the policy's last hidden state at each response token, within a micro-batch",
    "reference-kl": "the KL divergence from the reference over the whole vocabulary, in every step",
    "reference-entropy": "the reference's entropy over the whole vocabulary",
    "collisions": "the sum of squared probabilities over the whole vocabulary",
    "embedding-gradients": "gradients by the input embeddings: a second backward pass through the model",
    "guide": "log-probs under another frozen model, --guide",
    "contrast": "log-probs under a second frozen model, --contrast",
}
assert set(NEEDS) == set(get_args(Need))
AXES = ("loss", "robust", "geometry")
"""The kinds in the table of all combinations; more would not fit."""


@cli_command("compat", cls=PlanCommand)
@run_options
@recipe_option
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, **_words: Any) -> None:
    """Explain why methods can be combined, or why not and what to change.

    Takes the options of `alignzoo run`. Without any method, prints a table of all combinations.
    """
    layers = _with_both(plan_layers(ctx))
    if not any(kind in layer.values for layer in layers for kind in KINDS):
        _show_matrix(layers, as_json)
        return
    resolved = resolve(layers, distributed=distributed_backend())
    if isinstance(resolved, Plan):
        _show_works(resolved, as_json)
    else:
        _show_problems(resolved, as_json)
        ctx.exit(resolved[0].exit_code)


def _with_both(layers: list[Layer]) -> list[Layer]:
    """The layers with the embedded model or data where only the other one is named: whether methods can be combined
    depends on neither's content."""
    named = {key for layer in layers for key in ("model", "data") if key in layer.values}
    missing = {"model", "data"} - named if len(named) == 1 else set[str]()
    return [*(Layer("compat", {key: EMBEDDED}) for key in missing), *layers]


def _show_works(plan: Plan, as_json: bool) -> None:
    demands = [line for method in plan.all_methods for line in _demands(method)]
    reasons = [*plan.notes, *data_read(plan), *demands, *_costs(plan)]
    if as_json:
        facts = {
            "ok": True,
            "sentence": plan.sentence(),
            "needs": sorted(plan.needs),
            "batch_coupled": plan.batch_coupled,
            "passes": _passes(plan),
            "micro_batches": _micro_batches(plan),  # None: the token budget decides
            "reasons": reasons,
        }
        print_json(facts)
        return
    print_lines(f"works: {plan.sentence()}", *(f"  {reason}" for reason in reasons))


def _show_problems(problems: list[AlignzooError], as_json: bool) -> None:
    if as_json:
        facts = [problem_dict(problem) for problem in problems]
        print_json({"ok": False, "problems": facts, "error": facts[0]})
        return
    for problem in problems:
        print_lines(f"no: {problem.message}", *([f"  {problem.hint}"] if problem.hint else []))


def _demands(method: Method) -> list[str]:
    needs = sorted(method.needs)
    name = f"{method.card.kind} {method.card.name}"
    return [f"{name} needs {NEEDS[need]}" for need in needs] or [f"{name} needs nothing extra"]


def _micro_batches(plan: Plan) -> int | None:
    if plan.settings.tokens_per_micro_batch is not None:
        return None
    return -(-plan.settings.batch_size // plan.settings.micro_batch_size)


def _costs(plan: Plan) -> list[str]:
    passes, parts = _passes(plan), _micro_batches(plan)
    costs = [f"geometry {plan.one('geometry').card.name} takes up to {passes} forward-backward passes per step"]
    if passes == 1:
        costs = ["one forward-backward pass per step"]
    costs += [f"scores come from reward {reward.card.name}, once before training" for reward in plan.of("reward")]
    if not plan.batch_coupled:
        return [*costs, "rows are independent: any micro-batch size gives the same step"]
    coupling = [method.card for method in plan.all_methods if method.couples]
    coupled = " and ".join(card.name for card in coupling)
    if parts is None:
        return [
            *costs,
            f"{coupled} couples the rows of a step: if --tokens-per-micro-batch splits it, one extra forward without "
            "gradients per pass keeps the result exact",
        ]
    if parts == 1:
        return [*costs, f"{coupled} couples the rows of a step; they fit one micro-batch, at no extra cost"]
    return [
        *costs,
        f"{coupled} couples the rows of a step, split here into {parts} micro-batches: one extra forward without "
        "gradients per pass keeps the result exact (none with --micro-batch-size "
        f"{plan.settings.batch_size})",
    ]


def _passes(plan: Plan) -> int:
    return max(getattr(method.card, "passes", 1) for method in plan.all_methods)


def _show_matrix(layers: list[Layer], as_json: bool) -> None:
    """Every loss under every wrapper and every geometry, with the line's other options."""
    losses, wrappers, geometries = (_names(kind) for kind in AXES)
    cells: dict[tuple[str, str | None, str], list[AlignzooError]] = {}
    for loss, wrapper, geometry in itertools.product(losses, [None, *wrappers], geometries):
        names = {"loss": loss, "robust": [wrapper] if wrapper else [], "geometry": geometry}
        resolved = resolve([*layers, Layer("compat", names)], distributed=distributed_backend())
        cells[loss, wrapper, geometry] = [] if isinstance(resolved, Plan) else resolved
    if as_json:
        print_json({"combinations": [_cell_dict(key, problems) for key, problems in cells.items()]})
        return
    reasons = list(dict.fromkeys(problem.message for problems in cells.values() for problem in problems))

    def mark(problems: list[AlignzooError]) -> str:
        numbers = sorted({reasons.index(problem.message) + 1 for problem in problems})
        return f"no [{','.join(map(str, numbers))}]" if numbers else "ok"

    for position, loss in enumerate(losses):
        rows = [
            [geometry, *(mark(cells[loss, wrapper, geometry]) for wrapper in (None, *wrappers))]
            for geometry in geometries
        ]
        if position:
            print_lines("")
        print_table(["geometry", "no wrapper", *wrappers], rows, title=f"loss {loss}")
    if reasons:
        print_lines("", *(f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)))


def _cell_dict(key: tuple[str, str | None, str], problems: list[AlignzooError]) -> dict[str, Any]:
    loss, wrapper, geometry = key
    return {
        "loss": loss,
        "robust": [wrapper] if wrapper else [],
        "geometry": geometry,
        "ok": not problems,
        "problems": [problem_dict(problem) for problem in problems],
    }


def _names(kind: str) -> list[str]:
    """Cards of a kind by their shortest unambiguous name."""
    entries = [(plugin, method) for plugin, method in registry().entries(kind) if isinstance(method, Card)]
    count = Counter(method.name for _, method in registry().entries(kind))
    return [
        method.name if count[method.name] == 1 else f"{plugin.distribution}:{method.name}" for plugin, method in entries
    ]
