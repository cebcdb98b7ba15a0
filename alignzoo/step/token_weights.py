"""Weights of tokens: what the run's aggregation makes of a micro-batch in every forward pass over it.

They are constants of the step: a generator depends on the run's seed, the step, the row and the response's place in it,
so a response has the same draws in every pass, whatever the cut into micro-batches and ranks, and after a resume.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from alignzoo.contract.aggregation import TokenView
from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.seeds import mixed
from alignzoo.errors import ModelError
from alignzoo.logprobs.hidden import keeping
from alignzoo.objective.guard import blamed, fault, wrong
from alignzoo.objective.terms import Aggregating
from alignzoo.step.engine import Engine


def forward(
    engine: Engine, model: torch.nn.Module, batch: TokenBatch, reference: ResponseBatch | None
) -> tuple[ResponseBatch, torch.Tensor | None]:
    """The engine's responses, and the last hidden states ``(R, T, H)`` if the aggregation reads them."""
    weighing = engine.objective.weighing
    with keeping(weighing is not None and weighing.hidden) as kept:
        responses = engine.responses(model, batch, reference)
    if weighing is not None and weighing.hidden and kept.grid is None:
        raise ModelError(
            f"aggregation {weighing.name!r} reads hidden states, but the model has no output head that is given them",
            hint="choose another aggregation, or a model with a language-modelling head",
        )
    return responses, kept.grid


def weighed(
    engine: Engine, responses: ResponseBatch, batch: TokenBatch, hidden: torch.Tensor | None, step: int | None
) -> ResponseBatch:
    """The responses with the weights of their tokens, if the aggregation gives any.

    Args:
        responses: of ``batch``, with all of their constants.
        hidden: as :func:`forward` gives them.
        step: 0-based optimizer step; None for an evaluation, which always draws the same.
    """
    weighing = engine.objective.weighing
    if weighing is None:
        return responses
    rows = [row for row, size in zip(batch.row_ids.tolist(), batch.sizes, strict=True) for _ in range(size)]
    places = [place for size in batch.sizes for place in range(size)]

    def generator(response: int) -> torch.Generator:
        seed = mixed(engine.seed, "tokens", step, rows[response], places[response])
        return torch.Generator().manual_seed(seed)

    return weighed_by(weighing, TokenView(responses.detach(), batch.row_ids, hidden, generator), responses)


@torch.no_grad()
def weighed_by(weighing: Aggregating, view: TokenView, responses: ResponseBatch) -> ResponseBatch:
    """The responses with the weights that an aggregation gives the tokens of a view of them.

    Raises:
        MethodError: it fails, or gives no finite weights ``(R, T)``.
    """
    method, due = weighing.method, "token_weights() returns constants, one per token, (R, T)"
    with blamed((method,), f"failed in token_weights() on {len(responses)} responses"):
        weights = method.token_weights(view)
    if weights is None:
        return responses
    mask = responses.token_mask
    if mask is None:
        raise wrong(method, type(method).token_weights, "weights", "only a card that needs 'token-logps' has tokens")
    what = fault(weights, mask.shape)
    if what is None and not bool(torch.isfinite(weights).all()):
        what = "NaN or infinity"
    if what is None and weights.requires_grad:
        what = "weights with a gradient"
    if what:
        raise wrong(method, type(method).token_weights, what, due)
    return replace(responses, token_weights=weights)
