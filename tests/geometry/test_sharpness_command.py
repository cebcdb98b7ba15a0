"""The rise of a loss over a radius: closed forms on a quadratic, and the real command on models and runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_analysis import plots
from alignzoo_analysis.sharpness import Subspace, measure
from alignzoo_sandbox import MODEL_PATH, preference_rows
from in_process import call_main

import alignzoo
from alignzoo.errors import AlignzooError
from alignzoo.model.load import load_policy
from alignzoo.model.source import find_model
from alignzoo.model.weights import fingerprint
from alignzoo.plan.settings import Settings
from alignzoo.report import Progress

RADII = (0.1, 0.5, 2.0)
Said = Callable[..., Any]


class Quadratic:
    """L = ½ xᵀ A x + bᵀ x of a vector in two parts, with A symmetric and not definite."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        half = torch.randn(7, 7, generator=draw, dtype=torch.float64)
        self.matrix = half + half.T
        self.slope = torch.randn(7, generator=draw, dtype=torch.float64)
        self.weights = [torch.randn(n, generator=draw, dtype=torch.float64).requires_grad_(True) for n in (3, 4)]

    def loss(self) -> torch.Tensor:
        x = torch.cat(self.weights)
        return 0.5 * x @ self.matrix @ x + self.slope @ x

    def value(self) -> float:
        return float(self.loss())

    def gradient(self, weights: Any) -> list[torch.Tensor]:
        return list(torch.autograd.grad(self.loss(), weights))


def rise(toy: Quadratic, step: torch.Tensor) -> float:
    x = torch.cat([w.detach() for w in toy.weights])
    return float((toy.matrix @ x + toy.slope) @ step + 0.5 * step @ toy.matrix @ step)


def subspaces(toy: Quadratic) -> list[Subspace]:
    masks = [torch.tensor([True, False, True]), torch.tensor([False, False, True, False])]
    return [
        Subspace("some", toy.weights, masks),
        Subspace("all", toy.weights),
        Subspace("second", toy.weights[1:]),
    ]


def test_the_closed_form_on_a_quadratic() -> None:
    toy = Quadratic()
    kept = [w.detach().clone() for w in toy.weights]
    found = measure(toy.value, toy.gradient, subspaces(toy), RADII, directions=3, seed=1, bar=Progress())
    assert all(torch.equal(w, k) for w, k in zip(toy.weights, kept, strict=True))
    assert found["loss"] == toy.value()
    x = torch.cat(kept)
    moving = {
        "some": torch.tensor([1, 0, 1, 0, 0, 1, 0]).double(),
        "all": torch.ones(7).double(),
        "second": torch.tensor([0, 0, 0, 1, 1, 1, 1]).double(),
    }
    for subspace in found["subspaces"]:
        mask = moving[subspace["name"]]
        gradient = (toy.matrix @ x + toy.slope) * mask
        assert subspace["weights"] == int(mask.sum())
        assert subspace["gradient_norm"] == pytest.approx(float(gradient.norm()))
        for radius, point in zip(RADII, subspace["slices"], strict=True):
            assert point["radius"] == radius
            assert point["worst"] == pytest.approx(rise(toy, radius * gradient / gradient.norm()))
            assert point["average"] == pytest.approx(sum(point["random"]) / 3)
            assert point["spread"] == pytest.approx(float(torch.tensor(point["random"]).double().std()))
            assert len(set(point["random"])) == 3


def test_random_directions_have_the_radius_and_the_mean_of_the_trace() -> None:
    """For a direction of length r in n dimensions, the mean rise is r²/2n times the trace of A."""
    toy = Quadratic()
    found = measure(
        toy.value, toy.gradient, [Subspace("all", toy.weights)], [2.0], directions=4000, seed=0, bar=Progress()
    )
    [point] = found["subspaces"][0]["slices"]
    expected = 4 / 14 * float(toy.matrix.trace())
    assert point["average"] == pytest.approx(expected, abs=4 * point["spread"] / 4000**0.5)


def test_directions_are_seeded_and_the_first_of_more() -> None:
    toy = Quadratic()

    def random(directions: int, seed: int) -> list[float]:
        found = measure(
            toy.value, toy.gradient, subspaces(toy)[:1], [1.0], directions=directions, seed=seed, bar=Progress()
        )
        drawn: list[float] = found["subspaces"][0]["slices"][0]["random"]
        return drawn

    assert random(2, 0) == random(4, 0)[:2]
    assert random(2, 0) != random(2, 1)
    assert len(random(1, 0)) == 1


def test_at_a_stationary_point_there_is_no_worst_direction() -> None:
    weight = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    found = measure(
        lambda: float(weight @ weight),
        lambda weights: [torch.zeros_like(w) for w in weights],
        [Subspace("all", [weight])],
        [0.5],
        directions=2,
        seed=0,
        bar=Progress(),
    )
    [point] = found["subspaces"][0]["slices"]
    assert point["worst"] is None
    assert point["average"] == pytest.approx(0.25)


def test_a_loss_that_is_not_finite_stops_and_restores() -> None:
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def value() -> float:
        return 0.0 if float(weight.abs()) < 0.3 else float("inf")

    with pytest.raises(AlignzooError, match=r"the loss is inf at radius 0.5 in all"):
        measure(
            value,
            lambda weights: [torch.ones_like(w) for w in weights],
            [Subspace("all", [weight])],
            [0.1, 0.5],
            directions=1,
            seed=0,
            bar=Progress(),
        )
    assert float(weight) == 0


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all caches in it, a tiny saved model and 60 pairs with safety labels."""
    import datasets
    import transformers

    folder = tmp_path_factory.mktemp("sharpness")
    names = {"ALIGNZOO_CACHE": "alignzoo", "HF_HOME": "hf", "HF_DATASETS_CACHE": "datasets"}
    with pytest.MonkeyPatch.context() as patch:
        for name, where in names.items():
            patch.setenv(name, str(folder / where))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        patch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", folder / "datasets" / "downloads")
        rows = [json.dumps(row) + "\n" for row in preference_rows("train", 60)]
        (folder / "pairs.jsonl").write_text("".join(rows))
        tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_PATH)
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=80,
                num_hidden_layers=2,
                num_attention_heads=4,
                initializer_range=0.2,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        yield folder


@pytest.fixture(scope="module")
def run(session: Path) -> Path:
    """A run of ShaPO on random neurons of that model."""
    words = {
        "model": str(session / "model"),
        "data": str(session / "pairs.jsonl"),
        "robust": "drdpo",
        "geometry": {"name": "shapo-token", "select": "random", "share": 0.1, "interval": 1},
        "eval-share": 0.3,
        "max-steps": 3,
        "batch-size": 8,
        "lr": 1e-3,
        "warmup-steps": 0,
        "out": str(session / "run"),
    }
    return Path(alignzoo.run(words).folder)


@pytest.fixture
def said(session: Path, capfd: pytest.CaptureFixture[str]) -> Said:
    def call(*words: object) -> Any:
        answer = call_main([str(word) for word in words], capfd)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout) if "--json" in words else answer.stdout

    return call


def test_a_run_is_measured_by_its_plan_in_its_neurons_and_everywhere(run: Path, session: Path, said: Said) -> None:
    out = session / "measured"
    found = said("sharpness", run, "--radii", "0.01,0.1", "--directions", 2, "--out", out, "--json")
    assert json.loads((out / "sharpness.json").read_text()) == {k: v for k, v in found.items() if k != "out"}
    assert (out / "sharpness.png").stat().st_size > 10_000
    assert found["objective"] == "dpo under drdpo"
    assert found["reference"] == str(session / "model")
    after = json.loads((run / "evaluation.json").read_text())["after"]
    assert found["loss"] == pytest.approx(after["eval/loss"], rel=1e-5), "the objective that the run itself reports"
    neurons, everything = found["subspaces"]
    counts = json.loads((run / "geometry" / "selection.json").read_text())
    assert (neurons["name"], neurons["weights"]) == ("neurons", 32 * counts["neurons"])
    assert everything["name"] == "all"
    assert everything["gradient_norm"] > neurons["gradient_norm"] > 0
    for subspace in found["subspaces"]:
        first = subspace["slices"][0]
        assert first["worst"] == pytest.approx(0.01 * subspace["gradient_norm"], rel=0.3), "nearly linear so close by"
        assert first["worst"] > abs(first["average"])


def test_a_model_is_measured_against_itself(session: Path, said: Said) -> None:
    words = ["sharpness", session / "model", "--data", session / "pairs.jsonl", "--eval-share", 0.3]
    words += ["--radii", "0.05", "--directions", 1]
    before = fingerprint(load_policy(find_model(str(session / "model")), Settings()))
    found = said(*words, "--subspace", "*.o_proj.*, *.norm.*", "--json")
    assert found["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert [s["name"] for s in found["subspaces"]] == ["*.o_proj.*, *.norm.*", "all"]
    assert found["subspaces"][0]["weights"] == 2 * 32 * 32 + 32
    neurons = said(*words, "--subspace", "neurons", "--probe.share", 0.4, "--json")["subspaces"][0]
    assert neurons["weights"] == 32 * int(0.01 * 160)
    only = said(*words, "--json")["subspaces"]
    assert [s["name"] for s in only] == ["all"]
    table = said(*words)
    assert "dpo on 20 held-out pairs: 0.693147" in table
    assert "worst case" in table
    assert fingerprint(load_policy(find_model(str(session / "model")), Settings())) == before


def test_the_neurons_of_a_run_in_another_model(run: Path, session: Path, said: Said) -> None:
    words = ["sharpness", session / "model", "--data", session / "pairs.jsonl", "--eval-share", 0.3, "--directions", 1]
    [neurons, _] = said(*words, "--radii", "0.1", "--selection", run, "--json")["subspaces"]
    assert neurons["weights"] == 32 * json.loads((run / "geometry" / "selection.json").read_text())["neurons"]


def test_frozen_weights_below_an_adapter_are_measured_too(session: Path, said: Said) -> None:
    words: dict[str, Any] = {
        "model": str(session / "model"),
        "data": str(session / "pairs.jsonl"),
        "geometry": {"name": "shapo-token", "select": "random", "share": 0.1, "interval": 1},
        "eval-share": 0.3,
        "lora": {"r": 2},
        "max-steps": 2,
        "batch-size": 8,
        "out": str(session / "adapted"),
    }
    alignzoo.run(words)
    found = said("sharpness", session / "adapted", "--radii", "0.1", "--directions", 1, "--json")
    neurons, everything = found["subspaces"]
    assert neurons["gradient_norm"] > 0
    assert everything["weights"] < 10_000, "the adapter's weights, which are what was trained"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("{model}", "needs data"),
        ("{run} --seed 3", "a run is measured with its own plan, so --seed cannot be set"),
        ("{run} --radii 0,1", "0 is not positive"),
        ("{run} --radii a", "not a list of numbers"),
        ("{run} --subspace nothing", "no trained weight matches 'nothing'"),
        ("{run} --subspace all --selection x", "--selection has no effect"),
        ("{run} --selection nowhere", "no saved selection in nowhere"),
        ("{run} --out {run}", "is not empty"),
        ("nowhere --data {model}", "nowhere"),
        ("{model} --data {pairs} --eval-share 0", "no pairs are held out"),
        ("{model} --data {pairs} --probe.share 0.2", "--probe.share has no effect"),
        ("{model} --data {pairs} --eval-share 0.3 --probe.share 0 --subspace neurons", "--selection PATH"),
    ],
)
def test_what_cannot_be_measured_says_why(
    words: str, complaint: str, run: Path, session: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = words.format(run=run, model=session / "model", pairs=session / "pairs.jsonl").split()
    answer = call_main(["sharpness", *line], capfd)
    assert answer.returncode in (1, 2)
    assert complaint in answer.stderr
    assert "Traceback" not in answer.stderr


def test_without_matplotlib_the_figures_are_there_and_the_picture_is_told(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = tmp_path / "out"
    answer = call_main(["sharpness", str(run), "--radii", "0.1", "--directions", "1", "--out", str(out)], capfd)
    assert answer.returncode == 0
    assert "sharpness.png was not drawn: a plot needs matplotlib; pip install 'alignzoo[plots]'" in answer.stderr
    assert os.listdir(out) == ["sharpness.json"]  # noqa: PTH208
    with pytest.raises(AlignzooError, match="a plot needs matplotlib"):
        plots.draw_slices(out / "x.png", [], "x")


def test_the_probe_command_reports_layers_neurons_and_a_picture(session: Path, said: Said) -> None:
    words = ["probe", "--model", session / "model", "--data", session / "pairs.jsonl"]
    out = session / "probe"
    found = said(*words, "--layers", "all", "--out", out, "--count", 6, "--json")
    assert [row["layer"] for row in found["layers"]] == [1, 2]
    assert found["selection"]["neurons"] == sum(found["selection"]["neurons_by_layer"].values()) == 6
    assert 0 <= found["held_out_ece"] <= 1
    assert (out / "probe.png").stat().st_size > 10_000
    assert found["plot"] == str(out / "probe.png")
    table = said(*words, "--layers", "0,1", "--pooling", "last", "--out", session / "probe-2")
    assert "held-out figures" in table
    assert "selected 1/160 MLP neurons (0.625 %, lowest cosine with the unsafe direction)" in table
    assert said("probe", "--compare", out, session / "probe-2", "--json")["neurons"] == [6, 1]
    again = alignzoo.run(
        {
            "model": str(session / "model"),
            "data": str(session / "pairs.jsonl"),
            "geometry": {"name": "shapo-token", "probe": str(out), "count": 6, "interval": 1},
            "max-steps": 1,
            "batch-size": 8,
            "out": str(session / "by-probe"),
        }
    )
    compared = said("probe", "--compare", out, again.folder, "--json")
    assert compared["jaccard"] == 1, "a run selects with the probe what the probe's command selected"
