"""Rules of rewards, tried on a few conversations and a tiny float64 llama as the policy."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from alignzoo.contract.scoring import Response, RewardContext
from alignzoo.errors import AlignzooError
from alignzoo.lazy import torch
from alignzoo.report import Reporter
from alignzoo.testing.common import dead_option, probed_as_declared
from alignzoo.testing.options import only_costs
from alignzoo.testing.outcomes import Rule, Skipped, Violation
from alignzoo.testing.sample import ORDER
from alignzoo.testing.snapshot import Snapshot
from alignzoo.testing.subject import Configuration, Subject

CLOSE = 1e-4
"""Relative to the largest score: what padding may change in fp32."""
_TURNS = (
    ("How do I open a jar?", "Hold it under warm water, then turn the lid."),
    ("How do I open a jar?", "No."),
    ("Where is Rome?", "In Italy, on the Tiber."),
    ("Where is Rome?", "I will not say, and you should not have asked me in the first place."),
    ("Say a word.", "Word."),
    ("Say a word.", "A very long answer to a very short question: word, word, word and once more word."),
    ("What is 2 + 2?", "4"),
    ("What is 2 + 2?", "It is 5, as everybody knows."),
)


def responses(*, own_scores: bool = False) -> list[Response]:
    """Two responses each to four prompts, text and chat messages; ``own_scores``: with scores of the data's own."""
    draw = torch.Generator().manual_seed(5)
    made = []
    for i, (prompt, reply) in enumerate(_TURNS):
        ids = torch.randint(3, 64, (4 + 2 * i,), generator=draw).tolist()
        score = float(torch.randn((), generator=draw)) if own_scores else None
        if i % 4 < 2:
            made.append(Response(i // 2, prompt, f" {reply}", ids, score=score))
        else:
            turns = [{"role": "user", "content": prompt}], [{"role": "assistant", "content": reply}]
            made.append(Response(i // 2, *turns, ids, score=score))
    return made


class RewardBench:
    """A policy, and rewards that are set up on it.

    Attributes:
        probes_trained: how often a probe was asked for that has to be trained.
    """

    def __init__(self) -> None:
        from alignzoo.testing.steps import Bench

        self._bench = Bench()
        self.policy: Any = self._bench.policy

    @property
    def probes_trained(self) -> int:
        return self._bench.probes_trained

    def ready(self, subject: Subject, configuration: Configuration) -> Any:
        """A new reward that was set up."""
        reward = subject.build(configuration)
        device = torch.device("cpu")
        reward.setup(RewardContext(self.policy, "weights of the kit", device, 0, Reporter(), self._bench.probe))
        return reward


def _one_finite_score(subject: Subject) -> None:
    for configuration in working(subject):
        for given in (_given(subject, configuration), _given(subject, configuration)[:1]):
            found = RewardBench().ready(subject, configuration).scores(given)
            if not isinstance(found, Sequence) or len(found) != len(given):
                shown = f"{len(found)} of them" if isinstance(found, Sequence) else f"a {type(found).__name__}"
                raise Violation(
                    expected=f"a list of {len(given)} scores",
                    found=f"{shown} {configuration}",
                    remedy="return one number per response, in their order",
                )
            bad = [value for value in found if not isinstance(value, (int, float)) or not math.isfinite(value)]
            if bad:
                raise Violation(
                    expected="finite numbers",
                    found=f"{bad[0]!r} {configuration}",
                    remedy="return floats (tensor.tolist()); a run stops at a score that is not finite",
                )


def _alone_or_together(subject: Subject) -> None:
    for configuration in working(subject):
        given, reward = _given(subject, configuration), RewardBench().ready(subject, configuration)
        whole = list(reward.scores(given))
        ordered = list(reward.scores([given[i] for i in ORDER]))
        found = {
            "in another order": [ordered[ORDER.index(i)] for i in range(len(given))],
            "one at a time": [score for one in given for score in reward.scores([one])],
            "in two parts": [*reward.scores(given[:3]), *reward.scores(given[3:])],
        }
        for how, scores in found.items():
            if not _close(scores, whole):
                raise Violation(
                    expected="a response's score not to depend on the others",
                    found=f"another score {how}, {configuration}",
                    remedy="score each response by itself: mask the padding, and normalise nothing over the batch",
                )


def _repeatable(subject: Subject) -> None:
    for configuration in working(subject):
        given, first = _given(subject, configuration), RewardBench().ready(subject, configuration)
        whole = list(first.scores(given))
        again = list(first.scores(given))
        fresh = list(RewardBench().ready(subject, configuration).scores(given))
        if again != whole or fresh != whole:
            raise Violation(
                expected="the same scores when asked again, and from a new object",
                found=f"others {configuration}",
                remedy="keep no state between calls, put models into eval mode, and draw nothing but by run.seed",
            )


def _no_dead_option(subject: Subject) -> None:
    working(subject)
    for name, field in subject.fields.items():
        tried, different = _compared(subject, name)
        if only_costs(field) == different:
            if different:
                raise Violation(
                    expected=f"option {name!r}, marked with cost, to leave the scores as they are",
                    found="others",
                    remedy="take json_schema_extra={'cost': True} away: kept scores are found without this option",
                )
            raise dead_option(name, tried)


def _identity(subject: Subject) -> None:
    from alignzoo.reward.scoring import score_identity

    for configuration in working(subject):
        stated = [score_identity(RewardBench().ready(subject, configuration), configuration.options) for _ in range(2)]
        if stated[0] != stated[1]:
            raise Violation(
                expected="identity() to be the same for the same reward",
                found=f"two of them {configuration}",
                remedy="hash what is read, and nothing that changes from object to object: no score would be reused",
            )
    for name in subject.fields:
        for base, changed in subject.variations(name):
            one, other = _outcome(subject, base), _outcome(subject, changed)
            if one is None or other is None or _close(one, other):
                continue
            same = {
                score_identity(RewardBench().ready(subject, configuration), configuration.options)
                for configuration in (base, changed)
            }
            if len(same) == 1:
                raise Violation(
                    expected="another identity() where the scores are others",
                    found=f"the same {base} and {changed}",
                    remedy="let identity() hash what the option leads to (the content of a path): kept scores of the "
                    "one would be taken for the other's",
                )


def _policy_unchanged(subject: Subject) -> None:
    for configuration in working(subject):
        bench = RewardBench()
        bench.policy.train()
        bench.policy.model.layers[0].requires_grad_(False)
        before = Snapshot(bench.policy)
        bench.ready(subject, configuration).scores(_given(subject, configuration))
        changes = list(before.changes(bench.policy))
        if changes:
            raise Violation(
                expected="the policy as it was, bit for bit",
                found=f"{', '.join(changes)} {configuration}",
                remedy="give its mode back in a `finally`, and work on a copy",
            )


def _declared_needs(subject: Subject) -> None:
    probed: list[tuple[Configuration, bool]] = []
    for configuration in working(subject):
        bench = RewardBench()
        bench.ready(subject, configuration).scores(_given(subject, configuration))
        probed.append((configuration, bench.probes_trained > 0))
    probed_as_declared(subject, probed)
    reading = [configuration for configuration, _ in probed if "scores" in subject.needs(configuration)]
    if reading and not any(map(partial(_reads_own_scores, subject), reading)):
        raise Violation(
            expected="the declared need 'scores' to be used",
            found="that a response's own score changes nothing",
            remedy="take it out of the needs: the data would have to bring them",
        )


def working(subject: Subject) -> list[Configuration]:
    """The configurations that the reward does not refuse.

    Raises:
        Skipped: it refuses all of them.
    """
    found = [configuration for configuration in subject.configurations if _outcome(subject, configuration) is not None]
    if not found:
        raise Skipped(f"refused: {subject.memo[_outcome, 'refusal']}")
    return found


def _given(subject: Subject, configuration: Configuration) -> list[Response]:
    return responses(own_scores="scores" in subject.needs(configuration))


def _outcome(subject: Subject, configuration: Configuration) -> list[float] | None:
    """The scores, from the memo; None where the reward refuses the configuration."""
    known: dict[str, list[float] | None] = subject.memo.setdefault(_outcome, {})
    key = repr(configuration.options)
    if key not in known:
        try:
            reward = RewardBench().ready(subject, configuration)
            known[key] = list(reward.scores(_given(subject, configuration)))
        except AlignzooError as refusal:
            subject.memo[_outcome, "refusal"] = str(refusal)
            known[key] = None
    return copy.copy(known[key])


def _compared(subject: Subject, name: str) -> tuple[int, bool]:
    """How many pairs of configurations differ in the option alone, and whether what comes out differs in any."""
    tried = 0
    for tried, (base, changed) in enumerate(subject.variations(name), start=1):
        one, other = _outcome(subject, base), _outcome(subject, changed)
        if (one is None) != (other is None) or (one is not None and other is not None and not _close(one, other)):
            return tried, True
    return tried, False


def _reads_own_scores(subject: Subject, configuration: Configuration) -> bool:
    given, reward = _given(subject, configuration), RewardBench().ready(subject, configuration)
    others = [replace(response, score=-1.0 - (response.score or 0.0)) for response in given]
    return not _close(list(reward.scores(others)), list(reward.scores(given)))


def _close(found: Sequence[float], expected: Sequence[float]) -> bool:
    scale = max(1e-12, *map(abs, expected))
    return len(found) == len(expected) and all(
        abs(a - b) <= CLOSE * scale for a, b in zip(found, expected, strict=True)
    )


RULES = (
    Rule("scores", "one finite number per response", _one_finite_score, ground=True),
    Rule("independent-responses", "a score does not depend on order, batch or the other responses", _alone_or_together),
    Rule("repeatable", "the same scores when asked again, and from a new object", _repeatable),
    Rule(
        "no-dead-option",
        "every option changes a score or a refusal, unless it is marked as a cost",
        _no_dead_option,
    ),
    Rule("identity", "identity() differs where the scores do, and is the same where they are", _identity),
    Rule("policy-unchanged", "the policy is left as it is: weights, flags, modes and hooks", _policy_unchanged),
    Rule(
        "declared-needs",
        "a probe and the data's scores are read where declared, and only there",
        _declared_needs,
    ),
)
