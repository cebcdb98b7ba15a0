"""Perplexity-aware correction: flips the labels of pairs whose chosen response a trained surrogate finds less likely.

    PPLDiff(x, y_w, y_l) = NLL(x ⊕ y_w) − NLL(x ⊕ y_l),   NLL: mean over all tokens but the first, prompt included
    PPLDiff ~ α·N(μ, σ²) + (1 − α)·N(−μ, σ²),   μ < 0:   α is the share of correct labels
    flip where PPLDiff ≥ t,   t = argmax_t S(t),   S(t) = α·Φ((t − μ)/σ) + (1 − α)·(1 − Φ((t + μ)/σ))

S is the share of rows on the right side of t, and t = σ²/(2μ)·log((1 − α)/α), within [μ, −μ]. Each of R rounds trains
a new surrogate with DPO: on rows with verified labels and, from the second round on, also on the r · share · N rows
that the previous surrogate was surest of, the lowest PPLDiffs as they are and the highest flipped, as α to 1 − α. The
labels come from the round with the largest S(t).

Kong et al., "Perplexity-aware Correction for Robust Alignment with Noisy Preferences" (NeurIPS 2024). The authors then
train with cdpo or rdpo under the noise rate 1 − α, which is reported as `noise`. Two deviations: they fit the mixture
to a histogram of 100 bins by least squares, here it is fitted by maximum likelihood; and verified rows keep their
verified labels. NLL is in nats, PPLDiff is per token.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from alignzoo.contract.card import Need
from alignzoo.errors import DataError
from alignzoo.interfaces import Selection, SelectionContext, SelectionModel, Selector
from alignzoo.lazy import F, np, torch
from alignzoo.plugin import Options, Paper, SelectorCard, Verified

GROUP = "group:"
_ROUNDS_OF_EM = 1000
_SMALLEST = 1e-6


class PerpCorrectOptions(Options):
    """The verified rows, and the surrogate's training as published."""

    clean: str = Field(
        description="rows with verified labels: a file with one row number per line, or group:NAME",
        examples=["group:g0", "group:g1"],
    )
    rounds: int = Field(6, ge=1, description="surrogates trained one after another", examples=[2, 3])
    share: float = Field(0.02, gt=0, le=1, description="share of the rows that each round adds", examples=[0.5])
    epochs: int = Field(3, ge=1, description="passes of a surrogate over its rows", examples=[2])
    batch_size: int = Field(4, ge=1, description="rows per step of a surrogate", examples=[2])
    lr: float = Field(
        1e-3, gt=0, description="peak learning rate of a surrogate (AdamW, linear decay)", examples=[0.02]
    )
    beta: float = Field(0.1, gt=0, description="the surrogate's DPO β", examples=[2.0])
    rank: int = Field(32, ge=0, description="rank of the surrogate's adapter; 0 trains all weights", examples=[0, 2])

    @field_validator("clean")
    @classmethod
    def _names_something(cls, value: str) -> str:
        if not value.removeprefix(GROUP).strip():
            raise ValueError("name a file with one row number per line, or group:NAME")
        return value

    def needs(self) -> frozenset[Need]:
        return frozenset({"groups"}) if self.clean.startswith(GROUP) else frozenset()


@dataclass(frozen=True)
class Mixture:
    """α·N(μ, σ²) + (1 − α)·N(−μ, σ²) with μ ≤ 0."""

    mu: float
    sigma: float
    alpha: float

    @property
    def threshold(self) -> float:
        """Where it separates best, within [μ, −μ]."""
        if self.mu == 0:
            return 0.0
        odds = math.log(max(1 - self.alpha, _SMALLEST)) - math.log(max(self.alpha, _SMALLEST))
        return min(max(self.sigma**2 / (2 * self.mu) * odds, self.mu), -self.mu)

    def separation(self, at: float) -> float:
        """The share of rows on the right side of a threshold."""
        below, above = _normal((at - self.mu) / self.sigma), 1 - _normal((at + self.mu) / self.sigma)
        return self.alpha * below + (1 - self.alpha) * above


def fit_mixture(values: np.ndarray) -> Mixture:
    """The mixture of largest likelihood, by expectation maximisation from μ at the root mean square."""
    second = float((values**2).mean())
    mu, alpha = -math.sqrt(max(second, _SMALLEST**2)), 0.5
    sigma = max(-mu / 2, _SMALLEST)
    for _ in range(_ROUNDS_OF_EM):
        odds = math.log(alpha) - math.log1p(-alpha) + 2 * mu * values / sigma**2
        share = np.exp(-np.logaddexp(0, -odds))  # of the component at μ, row by row
        before = mu, sigma, alpha
        mu = float(((2 * share - 1) * values).mean())
        sigma = math.sqrt(max(second - mu**2, _SMALLEST**2))
        alpha = min(max(float(share.mean()), _SMALLEST), 1 - _SMALLEST)
        if max(abs(a - b) for a, b in zip(before, (mu, sigma, alpha), strict=True)) < 1e-12:
            break
    return Mixture(mu, sigma, alpha) if mu <= 0 else Mixture(-mu, sigma, 1 - alpha)


def _normal(x: float) -> float:
    """The distribution function of N(0, 1)."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


class PerpCorrect(Selector):
    """Flips labels by the perplexities of surrogates."""

    options: PerpCorrectOptions

    def select(self, ctx: SelectionContext) -> Selection:
        clean = self._verified(ctx)
        opposite = clean[ctx.simulated[clean]]
        model, best = ctx.model, None
        rows, signs = clean, np.where(ctx.simulated[clean], -1, 1)
        for done in range(self.options.rounds):
            surrogate = self._surrogate(model, rows.tolist(), signs.tolist(), ctx.seed + done)
            differences = ppl_differences(model, surrogate)
            del surrogate
            mixture = fit_mixture(differences)
            reached = mixture.separation(mixture.threshold)
            ctx.report.note(
                f"perpcorrect {done + 1}/{self.options.rounds}: {mixture.alpha:.1%} of labels correct, "
                f"{reached:.1%} told apart"
            )
            if best is None or reached > best[0]:
                best = reached, mixture, differences
            more, flips = surest(differences, mixture.alpha, round((done + 1) * self.options.share * len(ctx)))
            rows = np.concatenate([clean, more])
            signs = np.concatenate([np.where(ctx.simulated[clean], -1, 1), np.where(flips, -1, 1)])
        assert best is not None
        _, mixture, differences = best
        if mixture.alpha < 0.5:
            ctx.report.warn(
                f"perpcorrect finds {1 - mixture.alpha:.0%} of the labels wrong, more than half: the surrogates have "
                "not learned the verified labels; verify more rows, or raise --selector.perpcorrect.lr or .epochs"
            )
        wrong = np.setdiff1d(np.flatnonzero(differences >= mixture.threshold), clean)
        facts = {"noise": 1 - mixture.alpha, "threshold": mixture.threshold, "separation": best[0]}
        return Selection(flipped=np.union1d(wrong, opposite).tolist(), facts=facts)

    def _verified(self, ctx: SelectionContext) -> np.ndarray:
        """The rows with verified labels.

        Raises:
            DataError: there are none, or the file cannot be read.
        """
        name = self.options.clean
        if name.startswith(GROUP):
            assert ctx.groups is not None
            rows = np.flatnonzero([group == name.removeprefix(GROUP) for group in ctx.groups])
        else:
            rows = np.flatnonzero(np.isin(ctx.row_ids, _numbers(name)))
        if len(rows) == 0:
            raise DataError(
                f"--selector.perpcorrect.clean {name} names none of the {len(ctx):,} training rows",
                hint="name rows by their number in the data, from 0; rows that are held out do not count",
            )
        return rows

    def _surrogate(self, model: SelectionModel, rows: Sequence[int], signs: Sequence[int], seed: int) -> Any:
        """A copy of the policy trained with DPO on these rows; a sign of −1 swaps a pair."""
        from alignzoo.reference.frozen import as_reference

        size = self.options.batch_size
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            surrogate = self._copy(model.policy).train()
            weights = [weight for weight in surrogate.parameters() if weight.requires_grad]
            optimizer = torch.optim.AdamW(weights, lr=self.options.lr, weight_decay=0.0)
            steps = self.options.epochs * -(-len(rows) // size)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
            for _ in range(self.options.epochs):
                order = torch.randperm(len(rows)).tolist()
                for start in range(0, len(rows), size):
                    some = order[start : start + size]
                    indices = [rows[i] for i in some]
                    sign = torch.tensor([signs[i] for i in some], device=model.device)
                    with as_reference(model.policy):
                        reference = _margins(model.forward(model.policy, indices).logps)
                    h = _margins(model.forward(surrogate, indices).logps) - reference
                    (-F.logsigmoid(self.options.beta * sign * h)).mean().backward()
                    torch.nn.utils.clip_grad_norm_(weights, 1.0)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
        return surrogate.eval()

    def _copy(self, policy: Any) -> Any:
        """A copy with an adapter of its own, unless the policy has one or all weights are to be trained."""
        surrogate = copy.deepcopy(policy)
        if hasattr(surrogate, "peft_config"):
            return surrogate
        if self.options.rank == 0:
            return surrogate.requires_grad_(True)
        from peft import LoraConfig, get_peft_model

        adapter = LoraConfig(
            r=self.options.rank, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        return get_peft_model(surrogate, adapter)


def _margins(logps: torch.Tensor) -> torch.Tensor:
    """Chosen less rejected, ``(B,)``."""
    return logps[0::2] - logps[1::2]


def ppl_differences(model: SelectionModel, surrogate: Any) -> np.ndarray:
    """The PPLDiff of every row, ``(N,)`` nats per token."""
    logps, tokens = model.scan(surrogate, whole=True)
    nll = (-logps / tokens).double().numpy()
    found: np.ndarray = nll[0::2] - nll[1::2]
    return found


def surest(differences: np.ndarray, alpha: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """``size`` rows of the most extreme differences, and which of these are to be flipped."""
    order = np.argsort(differences, kind="stable")
    size = min(size, len(order))
    low = round(size * alpha)
    rows = np.concatenate([order[:low], order[len(order) - (size - low) :]])
    return rows, np.arange(size) >= low


def _numbers(name: str) -> list[int]:
    """The row numbers in a file, one per line.

    Raises:
        DataError: there is no such file, or a line is no number.
    """
    path = Path(name).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").split()
        return [int(line) for line in lines]
    except (OSError, ValueError) as error:
        raise DataError(
            f"--selector.perpcorrect.clean {name}: {error}",
            hint="name a file with one row number per line, from 0, or group:NAME",
        ) from error


CARD = SelectorCard(
    name="perpcorrect",
    target=f"{__name__}:PerpCorrect",
    options=PerpCorrectOptions,
    summary="Flips labels that contradict a surrogate's perplexities",
    family="labels",
    formula="flip where NLL(x⊕y_w) − NLL(x⊕y_l) ≥ t, t from α·N(μ, σ²) + (1−α)·N(−μ, σ²)",
    paper=Paper(
        title="Perplexity-aware Correction for Robust Alignment with Noisy Preferences",
        authors=("Kong, Keyi", "Xu, Xilie", "Wang, Di", "Zhang, Jingfeng", "Kankanhalli, Mohan"),
        published=2024,
        venue="NeurIPS 2024",
        url="https://openreview.net/forum?id=OUXnnPJzXJ",
    ),
    shapes=frozenset({"pairs"}),
    loads=True,
    addresses=frozenset({"label-noise"}),
    verified=(
        Verified(against="maximum likelihood", test="test_the_mixture_has_the_largest_likelihood"),
        Verified(against="transformers' loss", test="test_ppl_differences_are_those_of_transformers_own_loss"),
        Verified(against="a grid of thresholds", test="test_the_threshold_separates_best"),
        Verified(against="known flips", test="test_perpcorrect_finds_the_labels_that_noise_has_flipped"),
    ),
)
