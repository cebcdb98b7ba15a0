"""Sharpness-aware controllers on a quadratic, where every step has a closed form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from alignzoo_geometry import draws
from alignzoo_geometry.ascent import lengthened
from alignzoo_geometry.draws import kth_smallest
from heard import Heard
from hypothesis import given
from hypothesis import strategies as st
from toy import Quadratic, Toy, flat

from alignzoo import list_methods, load_method
from alignzoo.errors import UsageError
from alignzoo.geometry.perturb import norm
from alignzoo.interfaces import StepLoss
from alignzoo.plugin import Card
from alignzoo.step.setup import SetupContext
from alignzoo.testing.tiny import tiny_model

RHO = 0.3
close = torch.testing.assert_close


def controller(name: str, **options: Any) -> Any:
    return load_method("geometry", name, **options)


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


class Rising(Toy):
    """A step of pairs whose losses rise by these amounts between θ and θ + ε."""

    def __init__(self, rises: list[float]) -> None:
        super().__init__({"w": torch.ones(1, 1, dtype=torch.float64)}, lambda w: w["w"].sum())
        self.rises = rises
        self.only_pairs: list[int] = []

    def evaluate(self) -> Any:
        moved = float(self.weights["w"].detach()) - 1
        losses = moved * torch.tensor(self.rises, dtype=torch.float64)
        return StepLoss(losses.mean(), losses, torch.arange(len(losses)))  # type: ignore[arg-type]

    def by_row(self, loss: StepLoss) -> Any:
        return loss.responses

    def only(self, kept: torch.Tensor) -> Rising:
        self.only_pairs = kept.nonzero().flatten().tolist()
        return self


def elsewhere(toy: Quadratic) -> torch.Tensor:
    """Other weights to take the next step at."""
    return toy.x + 0.7 * torch.cos(torch.arange(15, dtype=torch.float64) + toy.step)


def test_sam_on_a_quadratic() -> None:
    toy = Quadratic()
    x, g = toy.x, toy.at(toy.x)
    close(toy.take(controller("sam", rho=RHO)), toy.at(x + RHO * unit(g)))
    epsilon = RHO * unit(g)
    assert toy.metrics["radius"] == pytest.approx(RHO)
    assert toy.metrics["ascent_grad_norm"] == pytest.approx(float(g.norm()))
    assert toy.metrics["sharpness_gap"] == pytest.approx(float(g @ epsilon + 0.5 * epsilon @ toy.hessian @ epsilon))


def directions(toy: Quadratic) -> dict[str, torch.Tensor]:
    """Where ε leads, in any length, by the words of a controller that climbs."""
    g, t = toy.at(toy.x), torch.cat([toy.x[:12].abs() + 0.01, torch.ones(3, dtype=torch.float64)])
    layers = torch.cat([unit(g[:12]), unit(g[12:])])
    return {"sam": g, "gsam": g, "wsam": g, "looksam": g, "asam": t**2 * g, "sam layer": layers}


@pytest.mark.parametrize("words", ["sam", "sam layer", "asam", "gsam", "wsam", "looksam"])
def test_radius_gap_on_a_quadratic(words: str) -> None:
    """g·ε = s·|L|, in closed form along each controller's own direction; twice the share goes twice as far."""
    name, _, over = words.partition(" ")
    over = over or "global"
    radii = []
    for share in (0.2, 0.4):
        toy = Quadratic()
        x, g, value = toy.x, toy.at(toy.x), float(toy.evaluate().value)
        toward = directions(toy)[words]
        epsilon = share * abs(value) / (g @ toward) * toward
        taken = toy.take(controller(name, radius="gap", gap_share=share, norm=over))
        if name in ("sam", "asam", "looksam"):
            close(taken, toy.at(x + epsilon))
        assert toy.metrics["radius"] == pytest.approx(float(epsilon.norm()))
        assert toy.metrics["predicted_rise"] == pytest.approx(share * abs(value))
        rise = float(g @ epsilon + 0.5 * epsilon @ toy.hessian @ epsilon)
        assert toy.metrics["sharpness_gap"] == pytest.approx(rise)
        radii.append(toy.metrics["radius"])
    assert radii[1] == pytest.approx(2 * radii[0])


@pytest.mark.parametrize("name", ["ssam", "zsharp"])
def test_radius_gap_along_a_part_of_the_gradient(name: str) -> None:
    toy = Quadratic()
    toy.take(controller(name, radius="gap", gap_share=0.2))
    assert toy.metrics["predicted_rise"] == pytest.approx(0.2 * abs(float(toy.evaluate().value)))
    assert toy.metrics["predicted_rise"] < toy.metrics["radius"] * toy.metrics["ascent_grad_norm"]


def test_radius_gap_is_the_radius_of_the_same_length() -> None:
    toy = Quadratic()
    taken = toy.take(controller("sam", radius="gap", gap_share=0.3))
    close(toy.take(controller("sam", rho=toy.metrics["radius"])), taken)


def test_radius_gap_goes_by_the_size_of_a_negative_loss() -> None:
    toy = Toy({"w": torch.ones(4, dtype=torch.float64)}, lambda w: w["w"].sum() - 7)
    toy.take(controller("sam", radius="gap", gap_share=0.2))
    assert toy.metrics["sharpness_gap"] == pytest.approx(0.2 * 3)


def test_radius_gap_has_nowhere_to_go_from_a_loss_of_0_or_a_flat_one() -> None:
    weights = {"w": torch.ones(3, dtype=torch.float64)}
    for function in (lambda w: w["w"].sum() - 3, lambda w: (0 * w["w"]).sum() + 3):
        toy = Toy(weights, function)
        close(toy.take(controller("sam", radius="gap")), toy.take(controller("plain")))
        assert "radius" not in toy.metrics


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("sam", {"radius": "gap", "rho": 0.1}, "rho has no effect with radius gap"),
        ("looksam", {"radius": "gap", "rho": 0.1}, "rho has no effect with radius gap"),
        ("sam", {"gap_share": 0.1}, "gap_share has no effect with radius normalized"),
        ("gsam", {"radius": "gap", "gap_share": 0}, "greater than 0"),
        ("random", {"radius": "gap"}, "radius"),
        ("friendly-sam", {"radius": "gap"}, "radius"),
    ],
)
def test_a_length_that_would_do_nothing_is_refused(name: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        controller(name, **options)


def test_asam_on_a_quadratic() -> None:
    toy, eta = Quadratic(), 0.2
    x, g = toy.x, toy.at(toy.x)
    t = torch.cat([x[:12].abs() + eta, torch.ones(3, dtype=torch.float64)])
    epsilon = RHO * t**2 * g / (t * g).norm()
    close(toy.take(controller("asam", rho=RHO, eta=eta)), toy.at(x + epsilon))
    assert float((epsilon / t).norm()) == pytest.approx(RHO)


@pytest.mark.parametrize("over", ["global", "layer", "neuron"])
def test_asam_does_not_see_a_rescaling(over: str) -> None:
    """Two layers, one scaled by a and the other by 1/a: the same function, and the same step up."""
    draw = torch.Generator().manual_seed(1)
    first, second, x, y = (
        torch.randn(shape, generator=draw, dtype=torch.float64) for shape in [(5, 4), (3, 5), (4, 9), (3, 9)]
    )

    def rise(name: str, scale: float, **options: Any) -> float:
        weights = {"first.weight": scale * first, "second.weight": second / scale}
        toy = Toy(weights, lambda w: ((w["second.weight"] @ w["first.weight"] @ x - y) ** 2).mean())
        toy.take(controller(name, rho=RHO, norm=over, **options))
        return toy.metrics["sharpness_gap"]

    assert rise("asam", 1.0, eta=0) == pytest.approx(rise("asam", 3.0, eta=0))
    assert rise("sam", 1.0) != pytest.approx(rise("sam", 3.0))


def test_gsam_on_a_quadratic() -> None:
    toy, alpha = Quadratic(), 0.4
    x, g = toy.x, toy.at(toy.x)
    worst = toy.at(x + RHO * unit(g))
    across = g - (g @ unit(worst)) * unit(worst)
    taken = toy.take(controller("gsam", rho=RHO, alpha=alpha))
    close(taken, worst - alpha * across)
    assert float(across @ worst) == pytest.approx(0, abs=1e-12)
    assert float(taken @ unit(worst)) == pytest.approx(float(worst.norm())), "the part along g_p is left alone"


def test_wsam_on_a_quadratic() -> None:
    toy, gamma = Quadratic(), 0.9
    x, g = toy.x, toy.at(toy.x)
    worst = toy.at(x + RHO * unit(g))
    close(toy.take(controller("wsam", rho=RHO, gamma=gamma)), g + 9 * (worst - g))


def test_wsam_lies_between_plain_and_beyond_sam() -> None:
    toy = Quadratic()
    plain, sam = toy.take(controller("plain")), toy.take(controller("sam", rho=RHO))
    close(toy.take(controller("wsam", rho=RHO, gamma=0)), plain)
    close(toy.take(controller("wsam", rho=RHO, gamma=0.5)), sam)


def test_looksam_on_a_quadratic() -> None:
    toy, alpha = Quadratic(), 0.7
    looksam = controller("looksam", rho=RHO, every=3, alpha=alpha)
    for _ in range(2):
        x, g = toy.x, toy.at(toy.x)
        worst = toy.at(x + RHO * unit(g))
        close(toy.take(looksam), worst)
        across = worst - (worst @ unit(g)) * unit(g)
        for _ in range(2):
            toy.move(elsewhere(toy))
            g = toy.at(toy.x)
            close(toy.take(looksam), g + alpha * g.norm() * unit(across))
            assert toy.metrics["reused_norm"] == pytest.approx(float(across.norm()))
        toy.move(elsewhere(toy))


def test_friendly_sam_on_a_quadratic() -> None:
    toy, sigma, lam = Quadratic(), 0.8, 0.6
    friendly = controller("friendly-sam", rho=RHO, sigma=sigma, lam=lam)
    m = torch.zeros(15, dtype=torch.float64)
    for step in range(4):
        x, g = toy.x, toy.at(toy.x)
        close(toy.take(friendly), toy.at(x + RHO * unit(g - sigma * m)))
        m = lam * m + (1 - lam) * g if step else g
        toy.move(elsewhere(toy))


def outliers(part: torch.Tensor, quantile: float) -> torch.Tensor:
    scores = (part - part.mean()).abs() / part.std()
    return torch.where(scores > torch.quantile(scores, quantile), part, 0)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.33])
def test_zsharp_on_a_quadratic(quantile: float) -> None:
    """The matrix moves by ρ along its outliers, the bias as under sam."""
    toy = Quadratic()
    x, g = toy.x, toy.at(toy.x)
    kept = outliers(g[:12], quantile)
    assert 0 < int((kept != 0).sum()) < 12
    epsilon = torch.cat([RHO * unit(kept), RHO * unit(g)[12:]])
    close(toy.take(controller("zsharp", rho=RHO, quantile=quantile)), toy.at(x + epsilon))


def test_every_matrix_moves_by_rho_under_zsharp() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = {"a": (4, 5), "b": (6, 3), "c": (7,), "constant": (2, 2)}
    weights = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}
    slopes = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}
    slopes["constant"] = torch.full((2, 2), 0.5, dtype=torch.float64)
    toy = Toy(weights, lambda w: sum((slopes[n] * w[n]).sum() for n in shapes))  # type: ignore[arg-type,return-value]
    toy.take(controller("zsharp", rho=RHO, quantile=0.7))
    length = norm(list(slopes.values()))
    rest = (float(slopes["c"].square().sum()) + 1.0) / length**2
    assert toy.metrics["radius"] == pytest.approx(RHO * (2 + rest) ** 0.5)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.33])
def test_global_zsharp_on_a_quadratic(quantile: float) -> None:
    toy = Quadratic()
    x, g = toy.x, toy.at(toy.x)
    z = torch.cat([(part - part.mean()) / (part.std(unbiased=False) + 1e-8) for part in (g[:12], g[12:])]).abs()
    kept = torch.where(z > torch.quantile(z, quantile), g, 0)
    assert int((kept != 0).sum()) < 15
    close(toy.take(controller("zsharp", over="global", rho=RHO, quantile=quantile)), toy.at(x + RHO * unit(kept)))


def test_zsharp_at_quantile_0_is_nearly_sam() -> None:
    toy = Quadratic()
    x, g = toy.x, toy.at(toy.x)
    z = torch.cat([(part - part.mean()) / part.std(unbiased=False) for part in (g[:12], g[12:])]).abs()
    nearly = controller("zsharp", over="global", rho=RHO, quantile=0)
    close(toy.take(nearly), toy.at(x + RHO * unit(g * (z > z.min()))))


@pytest.mark.parametrize("over", ["tensor", "global"])
def test_zsharp_takes_the_whole_gradient_where_none_stands_out(over: str) -> None:
    """In a constant gradient every z-score is 0."""
    toy = Toy({"w": torch.zeros(3, 4, dtype=torch.float64)}, lambda w: w["w"].sum() + (w["w"] ** 2).sum())
    taken = toy.take(controller("zsharp", over=over, rho=RHO))
    close(taken, torch.full((12,), 1 + 2 * RHO / 12**0.5, dtype=torch.float64))


def test_a_norm_that_zsharp_ignores_is_an_error() -> None:
    with pytest.raises(UsageError, match="norm layer has no effect with over tensor"):
        controller("zsharp", norm="layer")


def test_a_quantile_of_many_numbers_is_estimated_on_some(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [torch.rand(shape, generator=draw) for shape in [(300, 200), (7,), (0,), (20000,)]]
    count = sum(part.numel() for part in parts)
    exact = kth_smallest(parts, int(0.9 * count), draw)
    close(exact, torch.quantile(flat(parts), 0.9), rtol=0, atol=1e-4)
    monkeypatch.setattr(draws, "EXACT_UP_TO", 5000)
    close(kth_smallest(parts, int(0.9 * count), draw), exact, rtol=0, atol=0.02)


def test_ssam_on_a_quadratic() -> None:
    toy, sparsity = Quadratic(), 0.4
    ssam = controller("ssam", rho=RHO, sparsity=sparsity, refresh=2)
    information = torch.zeros(15, dtype=torch.float64)
    for step in range(5):
        x, g = toy.x, toy.at(toy.x)
        information += g**2
        if step % 2 == 0:
            mask = torch.ones(15, dtype=torch.float64)
            mask[information.argsort()[:6]] = 0
            information = torch.zeros_like(information)
        close(toy.take(ssam), toy.at(x + RHO * unit(g) * mask))
        assert toy.metrics["unperturbed"] == pytest.approx(sparsity)
        toy.move(elsewhere(toy))


@pytest.mark.parametrize("mode", ["fisher", "dynamic"])
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
def test_ssam_masks_keep_their_share(mode: str, sparsity: float) -> None:
    toy = Quadratic()
    ssam = controller("ssam", rho=RHO, mode=mode, sparsity=sparsity, refresh=1)
    seen = set()
    for _ in range(12):
        before = flat(ssam._masks) if ssam._masks else None
        g = toy.at(toy.x)
        toy.take(ssam)
        mask = flat(ssam._masks)
        still = {"fisher": 15 - int(15 * (1 - sparsity)), "dynamic": -int(-sparsity * 15 // 1)}[mode]
        assert int((~mask).sum()) == still
        if mode == "dynamic" and before is not None:
            gone = int((before & ~mask).sum())
            assert gone == min(int(0.5 * (15 - still)), still)
            assert g.abs()[before & ~mask].max() <= g.abs()[before & mask].min(), "those with the least gradient go"
        seen.add(tuple(mask.tolist()))
        toy.move(elsewhere(toy))
    assert len(seen) > 1


def test_an_idle_drop_is_an_error() -> None:
    with pytest.raises(UsageError, match="drop has no effect with mode fisher"):
        controller("ssam", drop=0.3)


def test_msam_on_a_quadratic() -> None:
    toy, momentum = Quadratic(), 0.8
    msam = controller("msam", rho=RHO, momentum=momentum)
    v = torch.zeros(15, dtype=torch.float64)
    for step in range(4):
        x = toy.x
        expected = toy.at(x - RHO * unit(v)) if step else toy.at(x)
        close(toy.take(msam), expected)
        v = momentum * v + expected
        toy.move(elsewhere(toy))


def test_random_on_a_quadratic() -> None:
    toy = Quadratic()
    x, taken = toy.x, toy.take(controller("random", rho=RHO))
    epsilon = torch.linalg.solve(toy.hessian, taken + toy.linear) - x
    assert float(epsilon.norm()) == pytest.approx(RHO)
    close(toy.take(controller("random", rho=RHO)), taken)
    toy.step = 1
    assert not torch.allclose(toy.take(controller("random", rho=RHO)), taken), "another direction in every step"


def test_rwp_on_a_quadratic() -> None:
    toy, alpha = Quadratic(), 0.3
    x = toy.x
    noisy = toy.take(controller("rwp", gamma=0.2, alpha=1))
    close(toy.take(controller("rwp", gamma=0.2, alpha=alpha)), alpha * noisy + (1 - alpha) * toy.at(x))
    close(toy.take(controller("rwp", gamma=0)), toy.at(x))
    noise = torch.linalg.solve(toy.hessian, noisy + toy.linear) - x
    doubled = torch.linalg.solve(toy.hessian, toy.take(controller("rwp", gamma=0.4, alpha=1)) + toy.linear) - x
    close(doubled, 2 * noise, rtol=1e-6, atol=1e-9)


def test_rwp_noise_follows_the_rows() -> None:
    """The gradient of ½‖w‖² is w, so the noise shows in it."""
    rows, columns, gamma = 6, 20000, 0.1
    lengths = torch.arange(1.0, rows + 1, dtype=torch.float64)
    weight = torch.ones(rows, columns, dtype=torch.float64) * (lengths / columns**0.5)[:, None]
    toy = Toy({"map.weight": weight}, lambda w: 0.5 * (w["map.weight"] ** 2).sum())
    noise = toy.take(controller("rwp", gamma=gamma, alpha=1)).view(rows, columns) - weight
    close(noise.std(dim=1), gamma * lengths, rtol=0.03, atol=0)
    close(
        noise.mean(dim=1), torch.zeros(rows, dtype=torch.float64), rtol=0, atol=float(gamma * rows * 4 / columns**0.5)
    )


def test_esam_perturbs_the_drawn_tensors_by_more() -> None:
    keep, parts = 0.5, (slice(0, 12), slice(12, 15))
    seen = set()
    for step in range(12):
        toy = Quadratic()
        toy.step = step
        x, g = toy.x, toy.at(toy.x)
        drawn = (torch.rand(2, generator=toy.generator("esam")) < keep).tolist()
        seen.add(tuple(drawn))
        masked = torch.zeros_like(g)
        for part, yes in zip(parts, drawn, strict=True):
            masked[part] = g[part] * yes
        epsilon = RHO / keep * unit(masked) if any(drawn) else masked
        close(toy.take(controller("esam", rho=RHO, keep=keep, share=1)), toy.at(x + epsilon))
    assert len(seen) == 4


@pytest.mark.parametrize(("share", "kept"), [(0.5, 3), (0.375, 2), (0.44, 2), (0.1, 1), (0.985, 6), (0.99, 8)])
def test_esam_keeps_the_pairs_above_the_cutoff(share: float, kept: int) -> None:
    """As in the authors' code one less than ⌊γN⌋, at least one, and all of them from 0.99 on."""
    toy = Rising([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0])
    controller("esam", keep=1, share=share).step(toy)
    assert toy.only_pairs == sorted(sorted(range(8), key=lambda i: -toy.rises[i])[:kept])


def test_esam_leaves_out_pairs_as_high_as_the_cutoff() -> None:
    toy = Rising([1.0, 2.0, 2.0, 2.0, 0.0, 3.0])
    controller("esam", keep=1, share=0.5).step(toy)
    assert toy.only_pairs == [5]
    toy = Rising([2.0, 2.0, 2.0, 2.0])
    controller("esam", keep=1, share=0.5).step(toy)
    assert toy.only_pairs == [0], "where none is higher than the others, one is kept"


@pytest.mark.parametrize("name", ["sam", "gsam", "wsam", "looksam", "friendly-sam", "zsharp", "random"])
@pytest.mark.parametrize("over", ["global", "layer", "neuron"])
def test_the_perturbation_is_as_long_as_asked_for(name: str, over: str) -> None:
    toy = Quadratic()
    toy.take(controller(name, rho=RHO, norm=over, **({"over": "global"} if name == "zsharp" else {})))
    assert toy.metrics["radius"] == pytest.approx(RHO)


SHAPES = st.lists(st.sampled_from([(3, 4), (5,), (2, 3, 2), (), (4, 1)]), min_size=1, max_size=4)


@given(
    shapes=SHAPES,
    seed=st.integers(0, 99),
    rho=st.floats(1e-6, 1e3),
    over=st.sampled_from(["global", "layer", "neuron"]),
)
def test_a_direction_is_lengthened_in_equal_shares(
    shapes: list[tuple[int, ...]], seed: int, rho: float, over: Any
) -> None:
    draw = torch.Generator().manual_seed(seed)
    direction = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    direction[0] = torch.zeros_like(direction[0])
    axes = [(part.dim() - 2,) if part.dim() > 1 else () for part in direction]
    found = lengthened(direction, rho, over, axes)
    if len(shapes) == 1:
        assert found is None
        return
    assert found is not None
    assert norm(found) == pytest.approx(rho)
    assert not found[0].any()
    for part, like in zip(found[1:], direction[1:], strict=True):
        assert torch.equal(part.sign(), like.sign())
    if over == "layer":
        close(
            torch.stack([part.norm() for part in found[1:]]),
            torch.full((len(shapes) - 1,), rho / (len(shapes) - 1) ** 0.5, dtype=torch.float64),
        )
    if over == "neuron":
        outputs = [p.movedim(kept, 0) if (kept := p.dim() - 2) >= 0 else p.reshape(1, -1) for p in found[1:]]
        rows = torch.cat([p.flatten(1).norm(dim=1) for p in outputs])
        close(rows, torch.full_like(rows, rho / len(rows) ** 0.5))


def test_a_norm_by_output_must_know_the_outputs() -> None:
    with pytest.raises(ValueError, match="output_axes"):
        lengthened([torch.ones(2, 3)], 0.1, "neuron")


@pytest.mark.parametrize("pattern", ["map.bias", "*bias", " *.bias , map.bi*"])
def test_only_selected_weights_move(pattern: str) -> None:
    toy = Quadratic()
    x, g = toy.x, toy.at(toy.x)
    bias = torch.cat([torch.zeros(12, dtype=torch.float64), g[12:]])
    close(toy.take(controller("sam", rho=RHO, select=pattern)), toy.at(x + RHO * unit(bias)))
    worst = toy.at(x + RHO * unit(bias))
    close(toy.take(controller("wsam", rho=RHO, gamma=0.75, select=pattern)), g + 3 * (worst - g))


def test_a_pattern_that_names_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no trainable weight is called '\*\.mlp\.\*'") as error:
        controller("sam", select="map.*, *.mlp.*").step(Quadratic())
    assert "map.weight" in str(error.value.hint)


@pytest.mark.parametrize(
    "name", ["sam", "asam", "gsam", "wsam", "friendly-sam", "zsharp", "ssam", "random", "rwp", "esam"]
)
def test_only_the_last_step_of_an_interval_is_perturbed(name: str) -> None:
    toy = Quadratic()
    perturbing = controller(name, interval=3, **({"share": 1, "keep": 1} if name == "esam" else {}))
    moved = []
    for _ in range(6):
        toy.metrics = {}
        moved.append(not torch.allclose(toy.take(perturbing), toy.at(toy.x)))
        assert moved[-1] == ("radius" in toy.metrics)
        toy.move(elsewhere(toy))
    assert moved == [False, False, True] * 2


@pytest.mark.parametrize(
    "name", ["sam", "asam", "gsam", "wsam", "looksam", "friendly-sam", "zsharp", "ssam", "msam", "esam"]
)
def test_where_the_gradient_is_zero_the_step_is_plain(name: str) -> None:
    toy = Toy({"w": torch.zeros(3, 4, dtype=torch.float64)}, lambda w: (w["w"] ** 2).sum())
    for _ in range(3):
        assert not toy.take(controller(name)).any()
        toy.step += 1


MOVERS = [
    card.name
    for card in list_methods("geometry")
    if isinstance(card, Card) and {"norm", "select"} <= card.options.model_fields.keys()
]


@pytest.mark.parametrize("name", [*MOVERS, "rwp"])
def test_a_pattern_that_names_no_weight_is_refused_before_the_first_step(name: str) -> None:
    run = SimpleNamespace(model=torch.nn.Linear(2, 2), steps=None)
    controller(name, select="weight, bias").setup(run)
    with pytest.raises(UsageError, match="no trainable weight is called 'other'"):
        controller(name, select="weight,other").setup(run)


@pytest.mark.parametrize(
    ("name", "options"), [("shapo-token", {"select": "random"}), ("sam", {"interval": 5}), ("rwp", {"interval": 5})]
)
@pytest.mark.parametrize(("steps", "warned"), [(4, True), (5, False), (None, False)])
def test_a_run_without_a_perturbed_step_is_warned_of(
    name: str, options: dict[str, Any], steps: int | None, warned: bool
) -> None:
    heard = Heard()
    perturbing = controller(name, **options)
    perturbing.setup(SetupContext(tiny_model(), 0, heard, lambda folder: None, steps=steps))  # type: ignore[arg-type, return-value]
    assert [text.startswith("no step is perturbed") for text in heard.warnings] == [True] * warned
    assert not warned or "--geometry.interval 4 or less" in heard.warnings[0]
