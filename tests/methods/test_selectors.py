"""Every selector: which rows it keeps, flips and changes. The contract that all methods keep is in tests/testing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alignzoo_selectors.perpcorrect import Mixture, PerpCorrect, PerpCorrectOptions, fit_mixture, surest

from alignzoo import load_method
from alignzoo.data.selection import Selected, apply
from alignzoo.errors import DataError
from alignzoo.interfaces import Selection, SelectionContext
from alignzoo.plugin import SelectorCard, registry
from alignzoo.testing.selectors import NOISY, sample_context, sample_rows


def context(name: str, **options: Any) -> SelectionContext:
    card = registry().find("selector", name)
    assert isinstance(card, SelectorCard)
    return sample_context(card, "pairs", **options)


def select(name: str, **options: Any) -> Selection:
    selection: Selection = load_method("selector", name, **options).select(context(name, **options))
    return selection


@pytest.mark.parametrize(
    ("chosen_safe", "rejected_safe", "kept", "swapped"),
    [(True, True, True, False), (True, False, True, False), (False, True, True, True), (False, False, False, False)],
)
def test_safedpo_swaps_drops_and_keeps_as_published(
    chosen_safe: bool, rejected_safe: bool, kept: bool, swapped: bool
) -> None:
    ctx, selection = context("safedpo"), select("safedpo")
    assert ctx.safe is not None
    rows = [row for row, flags in enumerate(ctx.safe) if list(flags) == [chosen_safe, rejected_safe]]
    assert len(rows) == 3, "every case occurs"
    for row in rows:
        assert (row in set(selection.rows or ()), row in set(selection.flipped)) == (kept, swapped)
        assert selection.reasons.get(row) == (None if kept else "both unsafe")


def test_after_safedpo_every_chosen_response_is_safe() -> None:
    before = sample_rows("pairs")
    after = apply(Selected(before), select("safedpo"), name="safedpo", shape="pairs").rows
    assert all(chosen for chosen, _ in after["safe"])
    texts = {row["row_id"]: row["response_text"] for row in before}
    for row in after:
        was_safe = before["safe"][before["row_id"].index(row["row_id"])][0]
        assert row["response_text"] == texts[row["row_id"]][:: 1 if was_safe else -1]


def test_harmful_prefixes_are_the_rejected_responses_own_tokens() -> None:
    rows = sample_rows("pairs")
    selection = select("harmful-prefix", p=1.0, most=3)
    after = apply(Selected(rows), selection, name="harmful-prefix", shape="pairs").rows
    assert set(selection.prefixes) == set(range(len(rows)))
    assert set(selection.prefixes.values()) == {1, 2, 3}
    for row, (old, new) in enumerate(zip(rows, after, strict=True)):
        count = selection.prefixes[row]
        assert new["prompt_ids"] == old["prompt_ids"] + old["response_ids"][1][:count]
        assert new["response_ids"] == [old["response_ids"][0], old["response_ids"][1][count:]]


def test_harmful_prefixes_are_uniform_and_as_frequent_as_asked() -> None:
    size, long = 4000, list(range(50))
    ctx = context("harmful-prefix")
    many = SelectionContext(
        **{
            **{name: getattr(ctx, name) for name in ctx.__dataclass_fields__},
            "row_ids": np.arange(size),
            "_column": lambda name: [[[1], long]] * size,
        }
    )
    found = load_method("selector", "harmful-prefix", p=0.5, most=10).select(many).prefixes
    assert len(found) / size == pytest.approx(0.5, abs=0.03)
    counts = np.bincount(list(found.values()), minlength=11)
    assert counts[0] == 0
    assert counts[1:] / len(found) == pytest.approx(np.full(10, 0.1), abs=0.03)


def mixed(mu: float, sigma: float, alpha: float, size: int = 4000, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    sign = np.where(draw.random(size) < alpha, 1, -1)
    return sign * mu + sigma * draw.standard_normal(size)


@pytest.mark.parametrize(("mu", "sigma", "alpha"), [(-1.0, 0.5, 0.7), (-0.3, 0.2, 0.6), (-2.0, 0.3, 0.9)])
def test_the_mixture_has_the_largest_likelihood(mu: float, sigma: float, alpha: float) -> None:
    """The gradient of the likelihood, by autograd, is 0 there; and the values that were drawn from come back."""
    values = mixed(mu, sigma, alpha)
    found = fit_mixture(values)
    assert (found.mu, found.sigma, found.alpha) == pytest.approx((mu, sigma, alpha), abs=0.03)
    x = torch.from_numpy(values)
    at = torch.tensor([found.mu, found.sigma, found.alpha], dtype=torch.float64, requires_grad=True)
    low, high = (torch.distributions.Normal(sign * at[0], at[1]).log_prob(x) for sign in (1, -1))
    torch.logaddexp(at[2].log() + low, (1 - at[2]).log() + high).mean().backward()
    assert at.grad is not None
    torch.testing.assert_close(at.grad, torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [0.5, 0.7, 0.95, 0.3])
@pytest.mark.parametrize(("mu", "sigma"), [(-1.0, 0.5), (-0.1, 0.5)])
def test_the_threshold_separates_best(mu: float, sigma: float, alpha: float) -> None:
    """No threshold between the means puts more rows on their side, by the distribution functions of torch."""
    mixture, grid = Mixture(mu, sigma, alpha), torch.linspace(mu, -mu, 20001, dtype=torch.float64)
    below, above = (torch.distributions.Normal(sign * mu, sigma).cdf(grid) for sign in (1, -1))
    right = alpha * below + (1 - alpha) * (1 - above)
    assert mixture.separation(mixture.threshold) == pytest.approx(float(right.max()), abs=1e-8)
    assert mixture.threshold == pytest.approx(float(grid[right.argmax()]), abs=abs(mu) * 2e-4)


def test_values_without_two_components_break_nothing() -> None:
    for values in (np.zeros(5), np.full(5, -1.0), np.full(4, 2.0), np.array([1e-9, -1e-9]), np.array([1e6, -1e6, 3.0])):
        found = fit_mixture(values)
        assert all(map(math.isfinite, (found.mu, found.sigma, found.alpha, found.threshold)))
        assert 0 <= found.separation(found.threshold) <= 1


def test_the_surest_rows_are_the_extremes_in_proportion() -> None:
    values = np.array([0.5, -3.0, 2.0, -1.0, 0.0, 3.0, -2.0, 1.0])
    rows, flips = surest(values, alpha=0.75, size=4)
    assert dict(zip(rows.tolist(), flips.tolist(), strict=True)) == {1: False, 6: False, 3: False, 5: True}
    assert len(surest(values, alpha=0.5, size=99)[0]) == len(values)


def test_each_surrogate_learns_the_verified_labels_and_the_surest_of_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1·share·N rows in the second round and 2·share·N in the third: the lowest as they are, the highest flipped."""
    ctx, taught = context("perpcorrect", clean="group:g1"), list[dict[int, int]]()
    differences = np.linspace(-3, 2, len(ctx))  # row 0 is the surest right label, the last row the surest wrong one

    def surrogate(_self: Any, _model: Any, rows: list[int], signs: list[int], _seed: int) -> None:
        taught.append(dict(zip(rows[len(clean) :], signs[len(clean) :], strict=True)))

    monkeypatch.setattr(PerpCorrect, "_surrogate", surrogate)
    monkeypatch.setattr("alignzoo_selectors.perpcorrect.ppl_differences", lambda *_: differences)
    options = PerpCorrectOptions(clean="group:g1", rounds=3, share=0.25)
    clean = PerpCorrect(options)._verified(ctx)
    selection = PerpCorrect(options).select(ctx)
    assert taught[0] == {}
    for learned, size in zip(taught[1:], (round(0.25 * len(ctx)), round(0.5 * len(ctx))), strict=True):
        right = round(size * fit_mixture(differences).alpha)
        lowest, highest = range(right), range(len(ctx) - (size - right), len(ctx))
        assert learned == {**dict.fromkeys(lowest, 1), **dict.fromkeys(highest, -1)}
    assert -1 in taught[-1].values()
    wrong = set(np.flatnonzero(differences >= fit_mixture(differences).threshold)) - set(clean)
    assert set(selection.flipped) - set(clean) == wrong


def test_perpcorrect_keeps_verified_labels() -> None:
    """Verified rows under simulated noise get their label back, whatever the surrogate says of them."""
    from alignzoo.testing.selectors import SelectorBench
    from alignzoo.testing.subject import Configuration, Subject

    card = registry().find("selector", "perpcorrect")
    assert isinstance(card, SelectorCard)
    options = PerpCorrectOptions(clean="group:g1", rounds=1, rank=0)
    bench = SelectorBench()
    subject, configuration = Subject(card), Configuration({}, options)
    ctx = bench.context(subject, configuration, "pairs")
    assert ctx.groups is not None
    clean = {row for row, group in enumerate(ctx.groups) if group == "g1"}
    noisy = {row for row, number in enumerate(ctx.row_ids.tolist()) if number in NOISY}
    assert clean & noisy
    assert set(PerpCorrect(options).select(ctx).flipped) & clean == clean & noisy


@pytest.mark.parametrize(("text", "said"), [("7 8\n", "names none of the 12"), ("one", "invalid literal")])
def test_clean_rows_that_are_none_are_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "clean.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        load_method("selector", "perpcorrect", clean=str(file)).select(context("perpcorrect", clean=str(file)))
    with pytest.raises(DataError, match="No such file"):
        load_method("selector", "perpcorrect", clean="nowhere.txt").select(context("perpcorrect", clean="nowhere.txt"))


def test_ppl_differences_are_those_of_transformers_own_loss() -> None:
    """The mean over all tokens but the first, prompt included: the loss of transformers with the inputs as labels."""
    from alignzoo_selectors.perpcorrect import ppl_differences

    from alignzoo.testing.selectors import SelectorBench

    bench, rows = SelectorBench(), sample_rows("pairs")
    found = ppl_differences(bench._model("pairs", rows), bench.policy)
    for row, difference in zip(rows, found, strict=True):
        chosen, rejected = (torch.tensor([[*row["prompt_ids"], *ids]]) for ids in row["response_ids"])
        with torch.no_grad():
            expected = bench.policy(chosen, labels=chosen).loss - bench.policy(rejected, labels=rejected).loss
        assert difference == pytest.approx(float(expected), abs=1e-5)
