"""Search: points, scores on validation rows, the best recipe, and resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sweeping
from alignzoo_bench.folder import BENCH_FILE, read_bench
from alignzoo_bench.methods import world_layer
from alignzoo_sandbox import MODEL_PATH

from alignzoo.base.files import write_json
from alignzoo.base.stored import sealed
from alignzoo.data.division import VALIDATION_SHARE
from alignzoo.errors import DamagedError, UsageError
from alignzoo.plan.recipe import Layer, read_recipe
from alignzoo.plan.resolve import require, resolve
from alignzoo.report import Reporter
from alignzoo.sweeps.search import direction, run_search
from alignzoo.sweeps.search_asked import asked_ranges
from alignzoo.sweeps.search_folder import BEST_FILE, SEARCH_FILE, Search, read_search
from alignzoo.sweeps.search_points import RandomSampler, sampler_of
from alignzoo.sweeps.search_ranges import Scale, Words

RANGES = {"loss.beta": Scale(0.01, 1.0, log=True), "geometry.interval": Scale(1, 4, integer=True), "x": Words((1, 2))}


def search(world: str, **more: object) -> Search:
    layers = [world_layer(world, {}), Layer("flag", {"loss": "simpo"})]
    ranges = {"loss.beta": Scale(0.2, 20.0, log=True), "schedule": Words(("cosine", "constant"))}
    facts = {"objective": ("tiny-world/asr/validation",), "ranges": ranges, "trials": 3} | more
    return Search(layers, (5,), **facts)  # type: ignore[arg-type]


def test_random_points_lie_in_the_ranges_and_more_of_them_continue_the_sequence() -> None:
    sampler = RandomSampler(RANGES, 3, {"loss.beta": 0.5, "geometry.interval": 1, "x": 2})
    points = sampler.ask(0, 64)
    assert points[0] == sampler.first
    assert sampler.ask(0, 10) + sampler.ask(10, 54) == points
    assert all(0.01 <= point["loss.beta"] <= 1 and point["x"] in (1, 2) for point in points)
    assert {point["geometry.interval"] for point in points} == {1, 2, 3, 4}
    below = sum(point["loss.beta"] < 0.1 for point in points[1:])
    assert below == pytest.approx(32, abs=2), "half of a log scale of two decades lies in the first"
    assert RandomSampler(RANGES, 4, None).ask(0, 5) != RandomSampler(RANGES, 3, None).ask(0, 5)


def test_optuna_proposes_the_same_points_after_a_restart(tmp_path: Path) -> None:
    first = {"loss.beta": 0.5, "geometry.interval": 1, "x": 2}

    def ask(folder: Path, known: int, count: int) -> list[dict[str, object]]:
        sampler = sampler_of("optuna", RANGES, seed=1, first=first, folder=folder, known=known)
        points = sampler.ask(known, count)
        for number, point in enumerate(points, start=known):
            sampler.tell(number, -abs(float(point["loss.beta"]) - 0.3) if number != 1 else None)
        return points

    once = [*ask(tmp_path / "a", 0, 4), *ask(tmp_path / "a", 4, 2)]
    again = [*ask(tmp_path / "b", 0, 4), *ask(tmp_path / "b", 4, 2)]
    assert once == again
    assert once[0] == first


@pytest.mark.parametrize("sampler", ["random", pytest.param("optuna", marks=pytest.mark.slow)])
def test_a_search_scores_validation_rows_and_writes_the_best_recipe(
    tiny_world: str, tmp_path: Path, sampler: str
) -> None:
    asked = search(tiny_world, sampler=sampler, trials=2)
    record = run_search(tmp_path / "s", asked, sweeping.zipped, reporter=Reporter())
    assert [trial.state for trial in record.trials] == ["scored", "scored"]
    assert record.trials[0].values == {"loss.beta": 2.0, "schedule": "cosine"}, "the first is the recipe as it stands"
    best = min(record.trials, key=lambda trial: trial.figures["tiny-world/asr/validation"])
    assert record.best == best
    layer = read_recipe(str(tmp_path / "s" / BEST_FILE))
    plan = require(resolve([layer]))
    assert plan.one("loss").options.beta == best.values["loss.beta"]
    assert not plan.settings.validation, "a run of the recipe reports held-out rows"
    for path in (tmp_path / "s" / "trials").rglob("result.json"):
        assert not any("asr/test" in name for name in json.loads(path.read_text())["after"])
    ran = len(sweeping.RAN)
    again = run_search(tmp_path / "s", asked, sweeping.zipped, reporter=Reporter())
    assert (again, len(sweeping.RAN)) == (record, ran), "a finished search runs nothing"
    with pytest.raises(UsageError, match="--search-seed was 0 and is 7"):
        run_search(tmp_path / "s", search(tiny_world, sampler=sampler, seed=7), sweeping.zipped, reporter=Reporter())


@pytest.mark.slow
def test_a_search_goes_on_where_it_was_killed_and_takes_more_trials(tiny_world: str, tmp_path: Path) -> None:
    def killed(*words: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, search(tiny_world, trials=1), killed, reporter=Reporter())  # type: ignore[arg-type]
    asked = read_search(tmp_path).trials
    record = run_search(tmp_path, search(tiny_world, trials=2), sweeping.zipped, reporter=Reporter())
    assert record.trials[0].values == asked[0].values
    assert [trial.state for trial in record.trials] == ["scored", "scored"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (SEARCH_FILE, {"question": {}, "trials": [{"number": 0}]}, "trials.0.batch"),
        (BENCH_FILE, {"world": "w"}, "settings"),
    ],
)
def test_a_file_of_another_shape_is_damaged(tmp_path: Path, name: str, content: dict[str, Any], problem: str) -> None:
    write_json(tmp_path / name, sealed(content))
    with pytest.raises(DamagedError, match=f"{problem}: Field required"):
        (read_search if name == SEARCH_FILE else read_bench)(tmp_path)


def test_validation_rows_are_training_rows_and_reported_ones_stay_unused(tiny_world: str) -> None:
    from transformers import AutoTokenizer

    from alignzoo.data.division import divide
    from alignzoo.plan.settings import Settings

    tokenizer = AutoTokenizer.from_pretrained(str(MODEL_PATH))

    def prompts(**more: bool) -> tuple[set[str], set[str]]:
        settings = Settings(model="sandbox", data=tiny_world, probe_share=0, **more)
        division = divide(settings, tokenizer, needs=(), reads={}, report=Reporter())
        return set(division.train["prompt_key"]), set(division.held_out["prompt_key"])

    (train, reported), (rest, validation) = prompts(), prompts(validation=True)
    assert validation
    assert rest | validation == train
    assert not validation & (reported | rest)
    assert len(validation) == pytest.approx(VALIDATION_SHARE * len(train), abs=8)


def test_ranges_as_typed() -> None:
    plan = require(resolve([Layer("flag", {"loss": "simpo"})]))
    assert set(asked_ranges([], plan)) == {"loss.beta", "loss.gamma_beta_ratio"}
    typed = ["loss.beta", "lr=1e-5:1e-3", "warmup-steps=0:20", "schedule=cosine,constant"]
    found = asked_ranges(typed, plan)
    assert found["lr"] == Scale(1e-5, 1e-3, log=True)
    assert found["warmup-steps"] == Scale(0, 20, integer=True)
    assert found["schedule"] == Words(("cosine", "constant"))
    for wrong in ("loss.rho", "lr=1:0", "lr=fast:slow", "lr=1e-3", "loss.rho=0:1"):
        with pytest.raises(UsageError):
            asked_ranges([wrong], plan)


def test_the_direction_of_an_objective_is_known_or_stated() -> None:
    assert direction("world2/asr/validation") == ("world2/asr/validation", -1)
    assert direction("eval/rewards/accuracies") == ("eval/rewards/accuracies", 1)
    assert direction("max:own/figure") == ("own/figure", 1)
    with pytest.raises(UsageError, match="which way is better"):
        direction("own/figure")
