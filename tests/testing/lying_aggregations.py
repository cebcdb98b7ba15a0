"""Aggregations that break their contract, each in one way."""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.aggregation import TokenView
from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import Aggregation
from alignzoo.lazy import torch
from alignzoo.plugin import Options

Tokens = torch.Tensor | None


class Power(Options):
    power: float = Field(1.0, ge=0, description="read by nobody")


class Total(Aggregation):
    """Honest: the sum."""

    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return logps


class Tail(Aggregation):
    """Honest where it declares that it needs tokens: all but the first one."""

    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return token_logps[:, 1:].sum(-1)  # type: ignore[index]


class OneNumber(Total):
    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return logps.mean()


class Frozen(Tail):
    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return super().__call__(logps, token_logps, responses).detach()


class Perplexity(Tail):
    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return torch.exp(-super().__call__(logps, token_logps, responses))


class ByTheWidth(Tail):
    """The mean over a row of the batch, padding included."""

    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return token_logps.mean(-1)  # type: ignore[union-attr]


class ShortestOfAll(Tail):
    """Cuts at the shortest response of the batch in place of the prompt's."""

    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return token_logps[:, : int(responses.lengths.min())].sum(-1)  # type: ignore[index]


class ByRank(Total):
    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        assert responses.ranks is not None
        return logps * (1 + responses.ranks)


class OfThePolicy(Total):
    """The reference's call gives the policy's log-probs."""

    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return responses.logps + 0 * logps


class Drawn(Tail):
    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        return super().__call__(logps, token_logps, responses) * torch.rand(())


class Weighed(Aggregation):
    """Honest where it declares that it needs tokens: every other one, drawn by the response's generator."""

    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        mask = _mask(tokens)
        draws = [torch.rand(mask.shape[1], generator=tokens.generator(i)) for i in range(len(mask))]
        return (torch.stack(draws) < 0.5).to(mask) * mask

    def __call__(self, logps: torch.Tensor, token_logps: Tokens, responses: ResponseBatch) -> torch.Tensor:
        assert token_logps is not None
        assert responses.token_weights is not None
        return (token_logps * responses.token_weights.to(token_logps.dtype)).sum(-1)


class WeighedAtRandom(Weighed):
    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        return torch.rand_like(_mask(tokens))


class WeighedByAllPrompts(Weighed):
    """Weights relative to the longest response of the batch in place of the prompt's."""

    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        return _mask(tokens) / tokens.responses.lengths.max()


class OneWeightEach(Weighed):
    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        return tokens.responses.lengths


class Unbounded(Weighed):
    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        return 1 / (1 - _mask(tokens))


class PeeksAtHiddenStates(Weighed):
    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        return _mask(tokens) if tokens.hidden is None else tokens.hidden.mean(-1)


def _mask(tokens: TokenView) -> torch.Tensor:
    assert tokens.responses.token_mask is not None
    return tokens.responses.token_mask
