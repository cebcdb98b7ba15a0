"""``alignzoo compat``: whether methods can be combined, why, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines
from alignzoo.cli.data_read import data_read
from alignzoo.cli.describe import parts_of
from alignzoo.cli.failures import problem_dict
from alignzoo.cli.flags import PlanCommand, plan_layers, recipe_option, run_options
from alignzoo.cli.refusals import refusal_dict, refusals_dict, show_refusals, show_refusals_of
from alignzoo.contract.card import NONE, Need
from alignzoo.contract.kinds import KINDS
from alignzoo.distributed.launch import distributed_backend
from alignzoo.errors import AlignzooError
from alignzoo.plan.plan import Method, Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.refusals import Pairs
from alignzoo.plan.resolve import resolve
from alignzoo.plan.select import as_list
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


@cli_command("compat", cls=PlanCommand)
@run_options
@recipe_option
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, **_words: Any) -> None:
    """Explain why methods can be combined, or why not and what to change.

    Takes the options of `alignzoo run`. With a single method, also lists what it cannot be combined with; without any,
    everything that cannot be combined.
    """
    layers = _with_both(plan_layers(ctx))
    backend = distributed_backend()
    resolved = resolve(layers, distributed=backend)
    works = isinstance(resolved, Plan)
    pairs = Pairs(registry(), resolved.settings if isinstance(resolved, Plan) else None, backend)
    if works and not any(kind in layer.values for layer in layers for kind in KINDS):
        if as_json:
            print_json(refusals_dict(pairs))
        else:
            show_refusals(pairs)
        return
    facts = _works(resolved) if isinstance(resolved, Plan) else _problems(resolved)
    single = _single(layers, resolved, pairs)
    if as_json:
        refused = [refusal_dict(refusal, pairs) for method in single for refusal in pairs.of(method)]
        print_json(facts | ({"refused": refused} if single else {}))
    else:
        _show(facts)
        for method in single:
            show_refusals_of(method, pairs)
    if not isinstance(resolved, Plan):
        ctx.exit(resolved[0].exit_code)


def _with_both(layers: list[Layer]) -> list[Layer]:
    """The layers with the embedded model or data where only the other one is named: whether methods can be combined
    depends on neither's content."""
    named = {key for layer in layers for key in ("model", "data") if key in layer.values}
    missing = {"model", "data"} - named if len(named) == 1 else set[str]()
    return [*(Layer("compat", {key: EMBEDDED}) for key in missing), *layers]


def _single(layers: Sequence[Layer], resolved: Plan | list[AlignzooError], pairs: Pairs) -> list[Method]:
    """The only method that the line and its recipes name, with its options if they are valid; of a composition, the
    parts. None where several are named."""
    strongest = {kind: layer.values[kind] for layer in layers for kind in KINDS if kind in layer.values}
    named = [(kind, name) for kind, names in strongest.items() for name in as_list(names) if name != NONE]
    if len(named) != 1:
        return []
    try:
        method = registry().find(*named[0])
    except AlignzooError:  # among the problems already
        return []
    cards = parts_of(registry().plugin_of(method), method)
    planned = resolved.all_methods if isinstance(resolved, Plan) else ()
    return [next((m for m in planned if m.card is card), pairs.method_of(card)) for card in cards]


def _works(plan: Plan) -> dict[str, Any]:
    demands = [line for method in plan.all_methods for line in _demands(method)]
    return {
        "ok": True,
        "sentence": plan.sentence(),
        "needs": sorted(plan.needs),
        "batch_coupled": plan.batch_coupled,
        "passes": _passes(plan),
        "micro_batches": _micro_batches(plan),  # None: the token budget decides
        "reasons": [*plan.notes, *data_read(plan), *demands, *_costs(plan)],
    }


def _problems(problems: Sequence[AlignzooError]) -> dict[str, Any]:
    facts = [problem_dict(problem) for problem in problems]
    return {"ok": False, "problems": facts, "error": facts[0]}


def _show(facts: dict[str, Any]) -> None:
    if facts["ok"]:
        print_lines(f"works: {facts['sentence']}", *(f"  {reason}" for reason in facts["reasons"]))
    for problem in facts.get("problems", ()):
        print_lines(f"no: {problem['message']}", *([f"  {problem['hint']}"] if problem["hint"] else []))


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
