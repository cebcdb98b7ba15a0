"""Metrics of a set of responses: rewards, log-probs, weights, and non-finite rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Term

_ROUNDING = 5e-7  # of summed log-probs in fp32: twice the observed effect of different batches


@torch.no_grad()
def reward_metrics(term: Term, responses: ResponseBatch) -> dict[str, float]:
    """Means over all values: implicit rewards of the loss, their margin and accuracy (a tie counts half), log-probs.

    Where the responses have no order, chosen are the desirable ones, rejected the undesirable ones, and the margin is
    the difference of their means. What has no value in these responses is left out.
    """
    means = _of_pairs(term, responses) if term.reads == "pairs" else _of_responses(term, responses)
    means = {name: value for name, value in means.items() if value.numel()}
    if not means:
        return {}
    values = torch.stack([value.mean() for value in means.values()]).tolist()  # one device synchronisation
    return dict(zip(means, values, strict=True))


def _of_pairs(term: Term, responses: ResponseBatch) -> dict[str, torch.Tensor]:
    chosen, rejected = term.rewards(term.view(responses))
    better, worse = term.rewards(term.view(_settled(term.aggregated(responses))))
    return _compared(chosen, rejected, better, worse) | _log_probs(responses)


def _of_responses(term: Term, responses: ResponseBatch) -> dict[str, torch.Tensor]:
    rewards = term.rewards(term.view(responses))
    if term.reads == "chosen":
        return {"rewards/chosen": rewards} | _log_probs(responses)
    own = responses.of_role(POLICY)
    if _ordered(own):
        settled = term.rewards(term.view(_settled(term.aggregated(responses))))
        first, second = own.pair_places()
        compared = _compared(rewards[first], rewards[second], settled[first], settled[second])
        return compared | _log_probs(responses)
    return _by_label("rewards", rewards, own, margins=True) | _log_probs(responses)


def _compared(
    chosen: torch.Tensor, rejected: torch.Tensor, better: torch.Tensor, worse: torch.Tensor
) -> dict[str, torch.Tensor]:
    margin = chosen - rejected
    accuracy = (better > worse).to(margin.dtype) + 0.5 * (better == worse).to(margin.dtype)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": margin,
        "rewards/accuracies": accuracy,
    }


def _log_probs(responses: ResponseBatch) -> dict[str, torch.Tensor]:
    """The policy's, summed over tokens."""
    own = responses.of_role(POLICY)
    if not _ordered(own):
        return _by_label("logps", own.logps, own)
    chosen, rejected = own.pair_places()
    return {"logps/chosen": own.logps[chosen], "logps/rejected": own.logps[rejected]}


def _by_label(
    name: str, values: torch.Tensor, responses: ResponseBatch, *, margins: bool = False
) -> dict[str, torch.Tensor]:
    """Values ``(R,)`` of the desirable and of the undesirable responses, as far as there are any."""
    if responses.labels is None:
        return {f"{name}/chosen": values}
    sides = {"chosen": values[responses.labels >= 0], "rejected": values[responses.labels < 0]}
    found = {f"{name}/{side}": of_side for side, of_side in sides.items() if len(of_side)}
    if margins and len(found) == len(sides):
        found[f"{name}/margins"] = sides["chosen"].mean() - sides["rejected"].mean()
    return found


def _ordered(responses: ResponseBatch) -> bool:
    """Whether pairs can be made of them; of a data set's responses all or none have a rank."""
    return responses.paired or (responses.ranks is not None and bool((responses.ranks > 0).any()))


def _settled(responses: ResponseBatch) -> ResponseBatch:
    """The responses with the reference at the policy where they differ by rounding: which of two responses gained must
    not be read from the last digit, and an untrained policy ties everywhere, in whatever batches they were computed."""
    if responses.ref_logps is None:
        return responses
    same = torch.isclose(responses.logps, responses.ref_logps, rtol=_ROUNDING, atol=0)
    return replace(responses, ref_logps=torch.where(same, responses.logps, responses.ref_logps))


def weight_metrics(objective: Objective, responses: ResponseBatch) -> dict[str, float]:
    """``robust/effective_pairs``: (Σw)²/Σw² of the values' weights, N where all count the same. Only under wrappers,
    and where there is a value."""
    if not objective.wrappers:
        return {}
    weights = objective.weights(responses).double()
    if len(weights) == 0:
        return {}
    return {"robust/effective_pairs": float(weights.sum().square() / weights.square().sum())}


def non_finite(responses: ResponseBatch, ids: torch.Tensor) -> list[int]:
    """The ids ``(P,)`` of the rows with a log-prob (or another field) that is NaN or infinite."""
    finite = torch.ones(len(responses), dtype=torch.bool, device=responses.logps.device)
    for field in responses.present().values():
        finite &= torch.isfinite(field.double()).reshape(len(finite), -1).all(-1)
    return [int(i) for i in ids[responses.prompt[~finite].unique().to(ids.device)]]


def name_rows(ids: Sequence[int]) -> str:
    """Row ids for a message."""
    return ", ".join(map(str, ids[:20])) + (" ..." if len(ids) > 20 else "")
