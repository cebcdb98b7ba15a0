"""Curves of a method: a loss and its gradient against the margin, a wrapper's values or weights against the loss.

The standard pair has 20 tokens on either side, each of −4 nats under reference and policy. The margin moves both sides
by half of it, the chosen response up and the rejected one down, every token alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignzoo.contract.card import Card
from alignzoo.contract.loss import LossCard
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.responses import KL, POLICY, ResponseBatch
from alignzoo.contract.robust import RobustCard
from alignzoo.lazy import torch
from alignzoo.plugin.build import build_options, default_needs, instantiate
from alignzoo.plugin.registry import registry
from alignzoo.testing.sample import lacking

POINTS, FEWER = 121, 61
"""Of a curve; fewer where each is a step of its own."""
TOKENS, NATS = 20, -4.0
"""Of a response, and of each token's log-prob under the reference."""
SCORE = 0.1
"""Of the chosen response; the rejected one has 0."""
WIDEST, NARROWEST = 60.0, 4.0
"""Half the range of margins, in nats: the widest in which the middle half has a twentieth of all change."""
SHARE = 0.05
STEP = 33
"""Values in the step whose weights are drawn."""


@dataclass(frozen=True)
class Curve:
    """A line through points.

    Attributes:
        name: in the legend; empty if there is only one.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """A diagram: what is drawn, against what."""

    title: str
    x_label: str
    curves: tuple[Curve, ...]


Values = Callable[["torch.Tensor"], "torch.Tensor"]
"""From ``(N,)`` margins or log-ratios in nats to ``(N,)`` values."""


def panels_of(card: Card) -> tuple[Panel, ...]:
    """The diagrams of a method with its default options; none for a kind that has no curve, or if an option is
    required."""
    if any(field.is_required() for field in card.options.model_fields.values()):
        return ()
    if isinstance(card, LossCard):
        return _loss(card)
    return _wrapper(card) if isinstance(card, RobustCard) else ()


def _loss(card: LossCard) -> tuple[Panel, ...]:
    needs = default_needs(card)
    method = instantiate(card, build_options(card, {}))

    def of_margin(margins: torch.Tensor) -> torch.Tensor:
        batch = _pairs(margins, needs)
        values: torch.Tensor = method(batch if card.reads == "pairs" else _listed(batch))
        return values

    def of_label(label: int) -> Values:
        return lambda ratios: method(_responses(ratios, label, needs))[: len(ratios)]

    apart = card.batch_coupled or method.options.couples()
    if card.reads in ("pairs", "lists"):
        against = "margin" if "reference" in needs else "difference of log-probs"
        return _both({"": of_margin}, f"{against} of chosen over rejected, nats", one_by_one=apart)
    against = "log π − log π_ref" if "reference" in needs else "log-prob, from where it began"
    curves = {"": of_label(1)} if card.reads == "chosen" else {"desirable": of_label(1), "undesirable": of_label(-1)}
    return _both(curves, f"{against}, nats", one_by_one=apart)


def _wrapper(card: RobustCard) -> tuple[Panel, ...]:
    wrapper = instantiate(card, build_options(card, {}))
    if card.aggregates:
        losses = torch.linspace(0, 4, STEP, dtype=torch.float64)
        weights = wrapper.weights(losses).double() * STEP
        if weights.max() - weights.min() < 1e-9:  # of other things than the values, such as groups
            return ()
        curve = Curve("", tuple(losses.tolist()), tuple(weights.tolist()))
        return (Panel("weight (1: as in the mean)", f"loss, one of {STEP} in the step", (curve,)),)
    if "pairs" not in card.around:
        return ()
    dpo = registry().find("loss", "alignzoo:dpo")
    assert isinstance(dpo, Card)
    needs = default_needs(dpo) | default_needs(card)
    loss = instantiate(dpo, build_options(dpo, {}))
    curves: dict[str, Values] = {
        f"under {card.name}": lambda margins: wrapper.per_pair(loss, _pairs(margins, needs)),
        "dpo": lambda margins: loss(_pairs(margins, needs)),
    }
    return _both(curves, "margin of chosen over rejected, nats", one_by_one=True)


def _both(curves: dict[str, Values], x_label: str, *, one_by_one: bool) -> tuple[Panel, ...]:
    """Value and gradient, in a range in which something happens."""
    half = WIDEST
    lines = {name: _line(values, half, one_by_one=one_by_one) for name, values in curves.items()}
    while half > NARROWEST and not all(_fills(value) for value, _ in lines.values()):
        half /= 2
        lines = {name: _line(values, half, one_by_one=one_by_one) for name, values in curves.items()}
    x = tuple(_range(half, one_by_one=one_by_one).tolist())
    titles = ("loss", "gradient of the loss")
    return tuple(
        Panel(title, x_label, tuple(Curve(name, x, line[i]) for name, line in lines.items()))
        for i, title in enumerate(titles)
    )


def _fills(y: Sequence[float]) -> bool:
    """Whether the change within a range is not all at its ends."""
    inner = y[len(y) // 4 : -(len(y) // 4)]
    return max(inner) - min(inner) >= SHARE * (max(y) - min(y))


def _range(half: float, *, one_by_one: bool) -> torch.Tensor:
    return torch.linspace(-half, half, FEWER if one_by_one else POINTS, dtype=torch.float64)


def _line(values: Values, half: float, *, one_by_one: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Values and gradients; ``one_by_one`` for values that depend on the others in a batch."""
    x = _range(half, one_by_one=one_by_one)
    y: list[float] = []
    slope: list[float] = []
    for part in x.split(1) if one_by_one else (x,):
        leaf = part.clone().requires_grad_(True)
        value = values(leaf)
        [gradient] = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        y += value.detach().double().tolist()
        slope += (torch.zeros_like(leaf) if gradient is None else gradient).tolist()
    return tuple(y), tuple(slope)


def _pairs(margins: torch.Tensor, needs: frozenset[Any]) -> PairBatch:
    """Standard pairs with these margins and the fields of ``needs``."""
    fields: dict[str, Any] = {}
    for side, sign in (("chosen", 1.0), ("rejected", -1.0)):
        for name, value in _fields(sign * margins / 2, better=sign > 0).items():
            key = f"ref_{side}_{name.removeprefix('ref_')}" if name.startswith("ref_") else f"{side}_{name}"
            fields[key] = value
    fields["groups"] = torch.zeros(len(margins), dtype=torch.long)
    return PairBatch(**_declared(fields, needs))


def _responses(ratios: torch.Tensor, label: int, needs: frozenset[Any]) -> ResponseBatch:
    """Standard responses with these log-ratios and this label; one of the other label whose log-ratio is 0, and KL
    responses without a log-ratio either."""
    count, with_kl = len(ratios), "mismatched" in needs
    beside = torch.zeros(1 + (count + 1) * with_kl, dtype=torch.float64)
    fields = _fields(torch.cat([ratios, beside]), better=True)
    labels = torch.full((len(fields["logps"]),), label)
    labels[count:] = -label
    prompt = torch.arange(count + 1)
    if with_kl:
        labels[count + 1 :] = 0
        prompt = torch.cat([prompt, prompt])
        fields["roles"] = torch.tensor([POLICY] * (count + 1) + [KL] * (count + 1))
    fields |= {"labels": labels, "prompt": prompt, "groups": torch.zeros_like(prompt)}
    batch = ResponseBatch(**_declared(fields, needs))
    return batch.rows(torch.argsort(prompt, stable=True)) if with_kl else batch


def _listed(pairs: PairBatch) -> ResponseBatch:
    """Lists of two."""
    return replace(ResponseBatch.of_pairs(pairs), paired=False)


def _fields(ratios: torch.Tensor, *, better: bool) -> dict[str, torch.Tensor]:
    """The fields of responses with these log-ratios, spread evenly over their tokens."""
    one = torch.ones(len(ratios), dtype=torch.float64)
    tokens = torch.full((len(ratios), TOKENS), NATS, dtype=torch.float64)
    apart = float(better)
    return {
        "logps": TOKENS * NATS + ratios,
        "ref_logps": TOKENS * NATS * one,
        "lengths": TOKENS * one,
        "token_logps": tokens + ratios[:, None] / TOKENS,
        "ref_token_logps": tokens,
        "token_mask": torch.ones_like(tokens),
        "guide_tokens": tokens + apart,
        "contrast_tokens": tokens - apart,
        "scores": SCORE * apart * one,
        "safe": apart * one,
        "kls": 0.05 * TOKENS * one,
        "ref_entropies": 0.5 * TOKENS * one,
        "collisions": -1.0 * TOKENS * one,
        "embedding_norms": one,
    }


def _declared(fields: dict[str, Any], needs: Sequence[Any] | frozenset[Any]) -> dict[str, Any]:
    """The fields that a method with these needs is given."""
    return {name: value for name, value in fields.items() if not lacking(name, needs)}
