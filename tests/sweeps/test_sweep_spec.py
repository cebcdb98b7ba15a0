"""Grids, zips, exclusions and seeds: which runs they stand for, and what is wrong with a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignzoo.contract.kinds import KINDS
from alignzoo.errors import IncompatibleError, UsageError
from alignzoo.plan.recipe import Layer, read_recipe
from alignzoo.sweeps.plans import cell_plan, check
from alignzoo.sweeps.spec import Spec, expand, spec_of
from alignzoo.sweeps.words import typed_axes, typed_exclusion, typed_seeds

ISSUE = ("loss=dpo,simpo", "geometry=plain,sam,shapo-token", "label-noise=0,0.2,0.4")


def _labels(spec: Spec) -> list[str]:
    return [f"{cell.label} seed {cell.seed}" for cell in expand(spec)[1]]


def test_the_grid_is_crossed_and_each_seed_runs_all_of_it_before_the_next() -> None:
    axes, cells = expand(Spec(grid=typed_axes(ISSUE, "--grid"), seeds=typed_seeds("5")))
    assert axes == {
        "loss": ["dpo", "simpo"],
        "geometry": ["plain", "sam", "shapo-token"],
        "label-noise": [0, 0.2, 0.4],
    }
    assert len(cells) == 2 * 3 * 3 * 5 == len({cell.name for cell in cells})
    assert [cell.seed for cell in cells] == [seed for seed in range(5) for _ in range(18)]
    assert cells[1].name == "loss-dpo_geometry-plain_label-noise-0.2_seed-0"
    assert cells[1].values == {"loss": "dpo", "geometry": "plain", "label-noise": 0.2}


def test_zipped_axes_advance_together() -> None:
    spec = Spec(grid=typed_axes(["loss=dpo,ipo"], "--grid"), zipped=typed_axes(["lr=1e-4,1e-5", "epochs=1,2"], "--zip"))
    assert [label.removesuffix(" seed 0") for label in _labels(spec)] == [
        "loss=dpo lr=0.0001 epochs=1",
        "loss=dpo lr=1e-05 epochs=2",
        "loss=ipo lr=0.0001 epochs=1",
        "loss=ipo lr=1e-05 epochs=2",
    ]


def test_an_exclusion_leaves_out_every_point_with_its_values() -> None:
    spec = Spec(
        grid=typed_axes(["loss=dpo,simpo", "robust=none,drdpo", "lr=1e-4,1e-5"], "--grid"),
        exclude=[typed_exclusion("loss=simpo,robust=drdpo"), typed_exclusion("lr=0.00001,robust=none")],
    )
    assert _labels(spec) == [
        "loss=dpo robust=none lr=0.0001 seed 0",
        "loss=dpo robust=drdpo lr=0.0001 seed 0",
        "loss=dpo robust=drdpo lr=1e-05 seed 0",
        "loss=simpo robust=none lr=0.0001 seed 0",
    ]


def test_a_recipe_says_the_same_as_a_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "loss: dpo\nseeds: [3, 4]\ngrid:\n  robust: [none, [cdpo, drdpo]]\n  label_noise: [0, 0.2]\n"
        "zip: {lr: [1.0e-4, 1.0e-5], loss.beta: [0.1, 0.5]}\nexclude:\n  - {robust: none, label_noise: 0.2}\n"
    )
    typed = spec_of(
        [Layer("flag", {"loss": "dpo"})],
        grid=typed_axes(["robust=none,cdpo+drdpo", "label-noise=0,0.2"], "--grid"),
        zipped=typed_axes(["lr=1e-4,1e-5", "loss.beta=0.1,0.5"], "--zip"),
        exclude=[typed_exclusion("robust=none,label-noise=0.2")],
        seeds=typed_seeds("3,4"),
    )
    written = spec_of([read_recipe(str(tmp_path / "mine.yaml"))])
    assert expand(written) == expand(typed)
    assert len(expand(written)[1]) == 12
    assert written.layers[0].values == {"loss": "dpo"}


def test_the_line_overrides_an_axis_of_the_recipe() -> None:
    recipe = Layer("recipe:mine", {"grid.loss": ["dpo", "ipo"], "zip.lr": [0.1, 0.2], "seeds": 5, "seed": 9})
    spec = spec_of([recipe, Layer("flag", {})], grid={"lr": [0.3]}, seeds=(7,))
    assert _labels(spec) == ["loss=dpo lr=0.3 seed 7", "loss=ipo lr=0.3 seed 7"]


def test_without_seeds_it_is_the_runs_own() -> None:
    assert _labels(Spec([Layer("flag", {"seed": "4"})], {"loss": ["dpo"]})) == ["loss=dpo seed 4"]


def test_values_with_options_have_readable_unique_names() -> None:
    spec = Spec(grid={"geometry": [{"name": "sam", "rho": 0.1}, {"name": "sam", "rho": 0.2}], "data": ["a/b", "a:b"]})
    names = [cell.name for cell in expand(spec)[1]]
    assert len(set(names)) == 4, names
    assert all("/" not in name for name in names)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ({"grid": ["los=dpo,ipo"]}, "unknown axis 'los'", "did you mean loss?"),
        ({"grid": ["label-nose=0,1"]}, "unknown axis 'label-nose'", "did you mean label-noise?"),
        ({"grid": ["seed=0,1"]}, "seed cannot be an axis", "--seeds"),
        ({"grid": ["out=a,b"]}, "out cannot be an axis", "folder"),
        ({"grid": ["loss"]}, "not WORD=VALUE,VALUE", "for example"),
        ({"grid": ["loss=dpo", "loss=ipo"]}, "names loss twice", "list all"),
        ({"grid": ["lr=0.1,1e-1"]}, "the axis lr has 0.1 twice", "once"),
        ({"grid": ["lr=0.1"], "zip": ["lr=0.2"]}, "both --grid and --zip", "keep one"),
        ({"zip": ["lr=0.1,0.2", "epochs=1"]}, "lr has 2, epochs has 1", "--grid"),
        ({"grid": ["loss=dpo,ipo"], "exclude": ["los=dpo"]}, "no axis of this sweep", "did you mean loss?"),
        ({"grid": ["loss=dpo,ipo"], "exclude": ["loss=dop"]}, "--exclude loss=dop", "did you mean dpo?"),
        ({"grid": ["loss=dpo"], "exclude": ["loss=dpo"]}, "every combination is excluded", "--exclude"),
        ({"seeds": "none"}, "neither a count nor a list", "--seeds 5"),
        ({"seeds": "0"}, "neither a count nor a list", "--seeds 5"),
        ({"seeds": "1,1"}, "a seed is listed twice", "same run"),
    ],
)
def test_mistakes_say_what_was_meant(words: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(
            Spec(
                grid=typed_axes(words.get("grid", ()), "--grid"),
                zipped=typed_axes(words.get("zip", ()), "--zip"),
                exclude=[typed_exclusion(text) for text in words.get("exclude", ())],
                seeds=typed_seeds(words["seeds"]) if "seeds" in words else None,
            )
        )
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["grid: [loss]", "grid: {loss: dpo}", "exclude: dpo", "seeds: many"])
def test_a_malformed_recipe_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError):
        expand(spec_of([read_recipe(str(tmp_path / "mine.yaml"))]))


def _checked(*grid: str, layers: Any = (), **options: Any) -> Any:
    axes, cells = expand(Spec(layers, typed_axes(grid, "--grid")))
    return check(layers, axes, cells, **options)


def test_an_unknown_value_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"loss=dpoo geometry=plain: .*'dpoo'") as caught:
        _checked("loss=dpo,dpoo", "geometry=plain,sam")
    assert "did you mean dpo" in str(caught.value.hint)


def test_combinations_that_cannot_run_are_refused_or_skipped() -> None:
    grid = ("loss=dpo,sft", "robust=none,cdpo")
    with pytest.raises(IncompatibleError, match=r"(?s)1 of 4 combinations.*loss=sft robust=cdpo: ") as caught:
        _checked(*grid)
    assert "--skip-incompatible" in str(caught.value.hint)
    checked = _checked(*grid, skip_incompatible=True)
    assert [cell.label for cell in checked.cells] == [
        "loss=dpo robust=none",
        "loss=dpo robust=cdpo",
        "loss=sft robust=none",
    ]
    assert list(checked.skipped) == ["loss=sft robust=cdpo"]


def test_two_points_may_not_be_the_same_run() -> None:
    default = 0.5  # of the recipe sandbox
    with pytest.raises(UsageError, match="are the same run"):
        check([], *expand(Spec(grid={"loss": ["dpo", {"name": "dpo", "beta": default}]})))


def test_an_option_of_a_method_on_an_axis_goes_to_the_runs_that_have_it(tmp_path: Path) -> None:
    layers = [Layer("flag", {"geometry.sam.rho": 0.3})]
    axes, cells = expand(Spec(layers, {"geometry": ["plain", "sam"]}))
    plain, sam = (cell_plan(layers, axes, cell, tmp_path / cell.name) for cell in cells)
    assert not isinstance(plain, list)
    assert not isinstance(sam, list)
    assert plain.one("geometry").card.name == "plain"
    assert sam.one("geometry").options.model_dump()["rho"] == 0.3
    assert not sam.settings.save_model
    assert (sam.settings.seed, sam.settings.out) == (0, str(tmp_path / "geometry-sam_seed-0"))


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS.values() if kind.multiplicity == "stack"])
def test_none_is_an_empty_stack(kind: str) -> None:
    assert typed_axes([f"{kind}=none"], "--grid") == {kind: [[]]}
