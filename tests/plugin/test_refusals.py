"""Refused pairs of methods: the rules of a run, without its words."""

import random

from alignzoo.contract.kinds import KINDS
from alignzoo.errors import IncompatibleError
from alignzoo.plan.plan import Method, Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.refusals import Pairs
from alignzoo.plan.resolve import resolve
from alignzoo.plugin.registry import registry


def _messages(*methods: Method) -> set[str]:
    """Why a run refuses these methods, in this order; what it needs besides is given."""
    words: dict[str, list[str]] = {}
    for method in methods:
        words.setdefault(method.card.kind, []).append(method.card.name)
    frozen = {name: "sandbox" for name in ("guide", "contrast") if any(name in m.needs for m in methods)}
    resolved = resolve([Layer("test", words | frozen)])
    problems = [] if isinstance(resolved, Plan) else resolved
    return {problem.message for problem in problems if isinstance(problem, IncompatibleError)}


def _sample(pairs: Pairs, count: int) -> list[tuple[Method, Method]]:
    """Pairs of which a run can have both, drawn with a fixed seed."""
    draw, kinds = random.Random(0), list(KINDS)
    every = [method for some in pairs.methods.values() for method in some]
    drawn = [sorted(draw.sample(every, 2), key=lambda m: kinds.index(m.card.kind)) for _ in range(count)]
    return [(a, b) for a, b in drawn if a.card.kind != b.card.kind or KINDS[a.card.kind].several]


def test_pairs_are_refused_for_the_reasons_of_a_run() -> None:
    pairs = Pairs(registry())
    refused = 0
    for one, other in _sample(pairs, 400):
        found = pairs.between(one, other)
        apart = {*_messages(one), *_messages(other)}
        together = _messages(one, other) - apart
        names = (one.qualified, other.qualified)
        assert bool(together) == any(refusal.first is one for refusal in found), names
        if one.card.kind != other.card.kind:
            assert {refusal.problem.message for refusal in found} >= together, names
        refused += bool(found)
    assert refused > 10


def test_sharded_weights_rule_out_controllers_alone_and_not_beside_each_loss() -> None:
    pairs = Pairs(registry(), distributed="fsdp")
    whole = [m for m in pairs.methods["geometry"] if not getattr(m.card, "sharded", False)]
    assert whole
    for method in whole:
        assert [problem.rule for problem in pairs.nowhere(method)] == ["it does not support sharded weights"]
        assert not [refusal for refusal in pairs.of(method) if "sharded" in refusal.problem.rule]
    plain = pairs.methods["geometry"]
    assert [pairs.nowhere(m) for m in plain if m.card.name == "plain"] == [[]]
