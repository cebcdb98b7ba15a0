"""From layered words to a plan and back: origins, refusals, and what a resumed run may rely on."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignzoo.base.stored import sealed
from alignzoo.contract.card import Card, Options
from alignzoo.errors import AlignzooError, IncompatibleError, UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import FITTED, plan_to_dict, read_plan, write_plan
from alignzoo.plan.recipe import Layer, flatten, read_recipe
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.started import plain_values, plan_as_started
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import Registry, plugins_from, registry, resume_words

OWN = {"model": "sandbox", "data": "sandbox"}


def plan(*layers: dict[str, Any]) -> Plan:
    return require(resolve([Layer(f"layer {i}", values) for i, values in enumerate(layers)]))


def refusal(values: dict[str, Any], origin: str = "flag") -> AlignzooError:
    problems = resolve([Layer(origin, values)])
    assert isinstance(problems, list)
    return problems[0]


def test_later_layers_win_and_every_value_knows_where_it_is_from() -> None:
    found = plan({**OWN, "lr": 1e-3, "loss.beta": 0.5, "seed": 3}, {"lr": "2e-3"})
    assert (found.settings.lr, found.origins["lr"]) == (2e-3, "layer 1")
    assert (found.settings.seed, found.origins["seed"]) == (3, "layer 0")
    assert (found.one("loss").options.beta, found.one("loss").origins["beta"]) == (0.5, "layer 0")  # type: ignore[attr-defined]
    assert "batch_size" not in found.origins


def test_options_of_a_method_that_a_later_layer_replaces_are_dropped() -> None:
    found = plan({**OWN, "loss": "dpo", "loss.beta": 0.5}, {"loss": "simpo"})
    assert found.one("loss").card.name == "simpo"
    assert found.one("loss").options.beta == 2.0  # type: ignore[attr-defined]


def test_a_preset_is_the_origin_of_what_it_fills_in() -> None:
    options = plan_to_dict(plan({**OWN, "geometry": "shapo-token", "geometry.preset": "official"}))["geometry"][
        "options"
    ]
    assert options["radius"] == {"value": "raw", "from": "preset"}
    assert options["preset"]["from"] == "layer 0"
    assert options["gamma_max"]["from"] == "default"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"loss": "drdpo", "loss.beta": 0.3, "robust.beta_prime": 2.0},
        {"geometry": "shapo-token", "geometry.preset": "official", "lora.r": 4, "lora.alpha": 8},
        {**OWN, "loss": "ipo", "loss.logps": "sum", "track": "tensorboard"},
    ],
)
def test_a_plan_read_back_is_the_same_plan(values: dict[str, Any], tmp_path: Path) -> None:
    before = plan(values)
    write_plan(before, tmp_path)
    after = read_plan(tmp_path)
    assert (after.settings, after.origins) == (before.settings, before.origins)
    assert [(m.card, m.options, m.origins) for m in after.all_methods] == [
        (m.card, m.options, m.origins) for m in before.all_methods
    ]


@pytest.mark.parametrize(("section", "name"), [("settings", "max-grad-norm"), ("loss", "beta")])
def test_a_default_that_has_changed_since_stops_a_resume(section: str, name: str, tmp_path: Path) -> None:
    write_plan(plan(OWN), tmp_path)
    content = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    values = content["settings"] if section == "settings" else content[section]["options"]
    values[name]["value"] = 0.77
    del content["digest"]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(sealed(content)))
    with pytest.raises(AlignzooError, match=rf"{name} was 0.77 when the run started"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("given", "lengths"),
    [
        ({}, (1024, 512)),
        ({"max-length": 384}, (384, 192)),
        ({"max-length": "512"}, (512, 256)),
        ({"max-length": 4096}, (4096, 512)),
        ({"max-length": 2}, (2, 1)),
        ({"max-prompt-length": 1500}, (3000, 1500)),
        ({"max-length": 384, "max-prompt-length": 300}, (384, 300)),
    ],
)
def test_a_default_length_yields_to_a_given_one(
    given: dict[str, Any], lengths: tuple[int, int], tmp_path: Path
) -> None:
    found = plan(OWN, given)
    assert (found.settings.max_length, found.settings.max_prompt_length) == lengths
    stated = plan_to_dict(found)["settings"]
    for name, length in zip(("max-length", "max-prompt-length"), lengths, strict=True):
        assert stated[name] == {"value": length, "from": "layer 1" if name in given else "default"}
    write_plan(found, tmp_path)
    assert read_plan(tmp_path).settings == found.settings


def test_two_given_lengths_can_conflict() -> None:
    message = "--max-prompt-length 384 leaves no room for a response in --max-length 384"
    assert message in refusal({**OWN, "max-length": 384, "max-prompt-length": 384}).message


def test_local_paths_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    write_plan(plan({"model": "sandbox", "data": "pairs.jsonl"}), tmp_path / "out")
    monkeypatch.chdir("/")
    assert read_plan(tmp_path / "out").settings.data == str(tmp_path / "pairs.jsonl")


def test_a_recipe_may_not_let_a_strangers_code_run(tmp_path: Path) -> None:
    recipe = tmp_path / "evil.yaml"
    recipe.write_text("trust-remote-code: true\n")
    problems = resolve([read_recipe(str(recipe))])
    assert isinstance(problems, list)
    assert "a recipe may not" in problems[0].message
    assert plan({"trust-remote-code": True}).settings.trust_remote_code


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"lora.alpha": 8}, "--lora.alpha"),
        ({"tokens-per-micro-batch": 512, "micro-batch-size": 2}, "--micro-batch-size"),
        ({"eval-share": 0.2}, "--eval-share"),
        ({"data.split": "test"}, "--data.split"),
        ({"data.strict": True}, "--data.strict"),
        ({"model": "m", "data": "d", "eval-data": "e", "eval-share": 0.2}, "--eval-share"),
        ({"model": "m", "data": "d", "eval-data.split": "test"}, "--eval-data.split"),
        ({"model": "m", "data": "d", "eval-share": 0, "eval-every": 5}, "--eval-every"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(values: dict[str, Any], flag: str) -> None:
    error = refusal(values)
    assert isinstance(error, UsageError)
    assert error.message.startswith(f"{flag} has no effect here")


def test_a_budget_of_tokens_goes_before_the_micro_batch_size_of_a_recipe() -> None:
    settings = plan({"tokens-per-micro-batch": 512}).settings  # the recipe of the sandbox names --micro-batch-size
    assert settings.tokens_per_micro_batch == 512


def wrapper(name: str, **facts: Any) -> Card:
    return Card(kind="robust", name=name, target="nowhere:Wrapper", summary="s", formula="f", options=Options, **facts)


def test_wrappers_stack_unless_two_of_them_aggregate() -> None:
    extra = Plugin("theirs", "1", "x", "x", [wrapper("watcher", batch_coupled=True), wrapper("other", aggregates=True)])
    methods = Registry([*registry().plugins, extra])
    together = resolve([Layer("flag", {"robust": ["watcher", "drdpo"]})], methods=methods)
    assert isinstance(together, Plan)
    refused = resolve([Layer("flag", {"robust": ["other", "drdpo"]})], methods=methods)
    assert isinstance(refused, list)
    assert isinstance(refused[0], IncompatibleError)
    assert "each replace the mean" in refused[0].message


def test_a_strangers_alias_does_not_break_the_default_run_or_a_composition() -> None:
    loss = Card(kind="loss", name="mine", target="x:Y", summary="s", formula="f", aliases=("dpo",))
    methods = Registry([*registry().plugins, Plugin("theirs", "1", "x", "x", [loss, wrapper("drdpo")])])
    assert isinstance(resolve([Layer("flag", {})], methods=methods), Plan)
    composed = resolve([Layer("flag", {"loss": "drdpo"})], methods=methods)
    assert isinstance(composed, Plan)
    assert [method.distribution for method in composed.all_methods] == ["alignzoo"] * 3


def test_robust_none_takes_away_the_wrappers_of_a_recipe() -> None:
    assert plan({**OWN, "robust": ["drdpo"]}, {"robust": ["none"]}).of("robust") == ()


def test_controllers_stack_with_companions_and_not_with_each_other(tmp_path: Path) -> None:
    plan = require(resolve([Layer("flag", {**OWN, "geometry": ["ema", "shapo-token"], "geometry.ema.decay": 0.5})]))
    assert plan.one("geometry").card.name == "shapo-token"
    assert [method.card.name for method in plan.of("geometry")[1:]] == ["ema"]
    assert plan.of("geometry")[1].options.model_dump()["decay"] == 0.5
    write_plan(plan, tmp_path)
    again = read_plan(tmp_path)
    assert plan_to_dict(again) == plan_to_dict(plan)
    alone = require(resolve([Layer("recipe:x", {**OWN, "geometry": "ema"})]))
    assert (alone.one("geometry").card.name, alone.of("geometry")[1].card.name) == ("plain", "ema")
    both = resolve([Layer("flag", {**OWN, "geometry": ["shapo-token", "sam"]})])
    assert isinstance(both, list)
    assert both[0].exit_code == 3
    assert "each choose where the gradient is taken" in both[0].message
    twice = resolve([Layer("flag", {**OWN, "geometry": ["ema", "ema"]})])
    assert isinstance(twice, list)
    assert twice[0].exit_code == 3


def test_options_of_a_stack_of_controllers_find_their_owner() -> None:
    words = {**OWN, "geometry": ["sam", "ema"], "geometry.interval": 3, "geometry.rho": 0.1, "geometry.ema.interval": 2}
    plan = require(resolve([Layer("flag", words)]))
    assert plan.one("geometry").options.model_dump()["interval"] == 3
    assert plan.one("geometry").options.model_dump()["rho"] == 0.1
    assert plan.of("geometry")[1].options.model_dump()["interval"] == 2
    for wrong, said in (
        ("geometry.absent", "no controller of this run has that option"),
        ("geometry.swa.start", "'swa'"),
    ):
        problems = resolve([Layer("flag", {**words, wrong: 1})])
        assert isinstance(problems, list)
        assert said in problems[0].message
        assert problems[0].exit_code == 2


def test_a_recipe_may_list_controllers() -> None:
    flat = flatten({"geometry": [{"name": "sam", "rho": 0.2}, "ema"]}, "here")
    assert flat == {"geometry": ["sam", "ema"], "geometry.sam.rho": 0.2}


def test_only_paths_are_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("random", "adamw", "cosine", "probe"):
        (tmp_path / folder).mkdir()
    words = {**OWN, "geometry": "shapo-token", "geometry.select": "random", "optimizer": "adamw"}
    write_plan(require(resolve([Layer("flag", words)])), tmp_path)
    again = read_plan(tmp_path)
    assert again.settings.optimizer == "adamw"
    assert again.one("geometry").options.model_dump()["select"] == "random"
    probed = {**OWN, "geometry": "shapo-token", "geometry.probe": "probe"}
    write_plan(require(resolve([Layer("flag", probed)])), tmp_path)
    assert read_plan(tmp_path).one("geometry").options.model_dump()["probe"] == str(tmp_path / "probe")


def test_only_one_average_takes_the_weights_place() -> None:
    both = resolve([Layer("flag", {**OWN, "geometry": ["ema", "sam", "swa"]})])
    assert isinstance(both, list)
    assert both[0].exit_code == 3
    assert "ema and swa each replace the weights" in both[0].message


@pytest.mark.parametrize("optimizer", ["adafactor", "Rprop"])
def test_optimizers_that_need_whole_weights_are_refused_on_shards(optimizer: str) -> None:
    given = [Layer("flag", {"optimizer": optimizer})]
    assert isinstance(resolve(given, distributed="ddp"), Plan)
    [problem] = resolve(given, distributed="fsdp")  # type: ignore[misc]
    assert problem.exit_code == 3
    assert "does not support sharded weights" in problem.message


def edit(folder: Path, *values: tuple[str, Any]) -> None:
    """Change settings in a plan file by hand."""
    content = yaml.safe_load((folder / "plan.yaml").read_text())
    for name, value in values:
        content["settings"][name]["value"] = value
    (folder / "plan.yaml").write_text(yaml.safe_dump(content))


def a_checkpoint(folder: Path) -> None:
    """What a checkpoint says of the plan in the folder."""
    step = folder / "checkpoints" / "step-00000004"
    step.mkdir(parents=True)
    (step / "state.json").write_text(json.dumps(sealed({"step": 4, "plan": plain_values(plan_as_started(folder))})))


def test_a_hand_edited_plan_is_refused_and_its_edits_are_named(tmp_path: Path) -> None:
    write_plan(plan({**OWN, "lr": 1e-3}), tmp_path)
    a_checkpoint(tmp_path)
    assert read_plan(tmp_path).settings.lr == 1e-3
    edit(tmp_path, ("lr", 0.5), ("max-steps", 3))
    with pytest.raises(AlignzooError) as refusal:
        read_plan(tmp_path)
    said = str(refusal.value)
    assert "plan.yaml was edited after the run started" in said
    assert "max-steps was None and is 3, lr was 0.001 and is 0.5" in said
    assert f"alignzoo run --recipe {tmp_path} --max-steps 3 --lr 0.5" in said


def test_another_runs_plan_is_refused(tmp_path: Path) -> None:
    write_plan(plan(OWN), tmp_path)
    a_checkpoint(tmp_path)
    write_plan(plan({**OWN, "loss": "ipo"}), tmp_path)
    with pytest.raises(AlignzooError, match="loss was 'dpo' and is 'ipo'"):
        read_plan(tmp_path)


def test_before_the_first_checkpoint_an_edit_is_refused_too(tmp_path: Path) -> None:
    write_plan(plan(OWN), tmp_path)
    edit(tmp_path, ("lr", 0.5))
    with pytest.raises(AlignzooError, match="its content is not what was written") as refusal:
        read_plan(tmp_path)
    assert "restore it, or start a new run" in str(refusal.value)


def test_only_the_content_of_a_plan_counts(tmp_path: Path) -> None:
    write_plan(plan(OWN), tmp_path)
    before = read_plan(tmp_path)
    content = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    (tmp_path / "plan.yaml").write_text(f"# in another layout\n{yaml.safe_dump(content, default_flow_style=True)}")
    assert plan_to_dict(read_plan(tmp_path)) == plan_to_dict(before)


def test_the_line_that_resumes_a_run_can_be_typed_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "my loss.py"
    file.write_text("")
    with plugins_from(file):
        words = shlex.split(resume_words(tmp_path / "my run", trusting=True))
    run = ["alignzoo", "run", "--resume", str(tmp_path / "my run")]
    assert words == [*run, "--plugin", str(file), "--trust-remote-code"]


def test_a_run_folder_may_not_let_a_strangers_code_run(tmp_path: Path) -> None:
    write_plan(plan({**OWN, "trust-remote-code": True}), tmp_path)
    with pytest.raises(UsageError, match="cannot allow by itself") as refusal:
        read_plan(tmp_path)
    assert refusal.value.hint == f"if you trust the model: alignzoo run --resume {tmp_path} --trust-remote-code"
    assert read_plan(tmp_path, trust_remote_code=True).settings.trust_remote_code


def test_trust_that_a_run_did_not_have_does_not_go_into_its_plan(tmp_path: Path) -> None:
    write_plan(plan(OWN), tmp_path)
    with pytest.raises(UsageError, match="was started without --trust-remote-code"):
        read_plan(tmp_path, trust_remote_code=True)


@pytest.mark.parametrize("as_file", [True, False], ids=["plan.yaml", "folder"])
def test_a_run_is_a_recipe_for_another_one(as_file: bool, tmp_path: Path) -> None:
    given = {"loss": "dpo", "loss.beta": 0.3, "robust": ["drdpo"], "robust.drdpo.beta_prime": 2.0, "lr": 1e-5}
    before = plan({**OWN, **given, "geometry": ["shapo-token", "ema"], "lora.r": 4, "out": str(tmp_path / "old")})
    write_plan(before, tmp_path)
    layer = read_recipe(str(tmp_path / "plan.yaml" if as_file else tmp_path))
    assert layer.notes == ()
    again = resolve([layer])
    assert isinstance(again, Plan)
    assert again.settings == before.settings.model_copy(update={"out": None})
    assert [(m.card, m.options, m.origins.keys()) for m in again.all_methods] == [
        (m.card, m.options, m.origins.keys()) for m in before.all_methods
    ]
    assert again.origins.keys() == before.origins.keys() - {"out"}, "what was a default is not stated"
    assert set(again.origins.values()) == {layer.origin}
    changed = resolve([layer, Layer("flag", {"loss": "ipo", "lr": 1e-4, "geometry": ["sam"]})])
    assert isinstance(changed, Plan)
    assert (changed.sentence(), changed.settings.lr) == ("--loss ipo --robust drdpo --geometry sam", 1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"robust": ["none"]}, "--loss dpo --geometry shapo-token --geometry ema"),
        ({"geometry": ["ema"]}, "--loss dpo --robust drdpo --geometry plain --geometry ema"),
    ],
    ids=["no wrapper", "other controllers"],
)
def test_flags_take_methods_of_a_recipe_away_with_their_options(
    words: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    given = {"robust": ["drdpo"], "robust.drdpo.beta_prime": 2.0, "geometry.shapo-token.interval": 2}
    write_plan(plan({**OWN, **given, "geometry": ["shapo-token", "ema"]}), tmp_path)
    layer = read_recipe(str(tmp_path))
    changed = resolve([layer, Layer("flag", words)])
    assert isinstance(changed, Plan), changed
    assert changed.sentence() == sentence
    asked_for = resolve([layer, Layer("flag", {"robust": ["none"], "robust.drdpo.beta_prime": 3.0})])
    assert isinstance(asked_for, list)
    assert "no wrapper 'drdpo' in this run" in asked_for[0].message


def test_what_the_model_decided_is_not_taken_by_a_recipe(tmp_path: Path) -> None:
    before = plan({**OWN, "lr": 1e-5})
    settings = before.settings.model_copy(update={"max_length": 64, "max_prompt_length": 32})
    write_plan(replace(before, settings=settings, origins={**before.origins, "max_length": FITTED}), tmp_path)
    layer = read_recipe(str(tmp_path))
    assert (layer.values["lr"], "max-length" in layer.values) == (1e-5, False)
    changed = resolve([layer, Layer("flag", {"max-prompt-length": 512})])
    assert isinstance(changed, Plan), changed


def test_a_plan_with_plugins_that_are_none_is_no_internal_error(tmp_path: Path) -> None:
    write_plan(plan(OWN), tmp_path)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "plugins": [{"file": 5}]}))
    with pytest.raises(AlignzooError, match="uses the plugin file 5"):
        read_recipe(str(tmp_path))


def test_the_trust_of_a_run_is_not_taken_by_a_recipe(tmp_path: Path) -> None:
    write_plan(plan({**OWN, "trust-remote-code": True}), tmp_path)
    again = resolve([read_recipe(str(tmp_path))])
    assert isinstance(again, Plan)
    assert not again.settings.trust_remote_code
    assert again.notes == (
        f"{tmp_path}: --trust-remote-code is not copied from it; set it yourself if you trust the model",
    )


@pytest.mark.parametrize("epochs", ["inf", "nan", float("inf")])
def test_epochs_come_to_an_end(epochs: object) -> None:
    assert "--epochs: input should be" in refusal({**OWN, "epochs": epochs}).message
