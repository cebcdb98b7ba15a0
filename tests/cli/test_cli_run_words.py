"""The words of ``run``: help, dry run, and what wrong ones get."""

import json
from pathlib import Path

import pytest
from cli_helpers import Az

from alignzoo.plan.settings import Settings


def test_help_has_every_setting_and_the_default_methods_options(az: Az) -> None:
    text = az("run", "--help").stdout
    for word in (*Settings.by_flag(), "loss", "robust", "geometry", "recipe", "resume", "dry-run", "json", "debug"):
        assert f"--{word}" in text
    assert "Loss dpo:" in text
    assert "--loss.beta NUMBER" in text
    assert "--dropout / --no-dropout" in text
    assert "--precision [auto|fp32|bf16]" in text
    assert "--robust." not in text


def test_help_has_the_options_of_the_methods_that_are_named(az_here: Az, tmp_path: Path) -> None:
    named = az_here("run", "--loss=drdpo", "--geometry", "shapo-token", "--help").stdout
    for part in ("Loss dpo:", "Robust drdpo:", "--robust.beta_prime NUMBER", "Geometry shapo-token:", "--geometry.rho"):
        assert part in named
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("loss: {name: ipo, tau: 0.2}\nrobust: [drdpo]\n")
    by_recipe = az_here("run", "--recipe", str(recipe), "--help").stdout
    for part in ("Loss ipo:", "--loss.tau", "[average|sum]", "Robust drdpo:"):
        assert part in by_recipe
    assert "Loss dpo:" not in by_recipe
    assert "Loss simpo:" in az_here("run", "--recipe", str(recipe), "--loss", "simpo", "--help").stdout


def test_help_survives_methods_and_recipes_that_do_not_exist(az_here: Az) -> None:
    ended = az_here("run", "--loss", "nope", "--loss.x", "1", "--recipe", "nope", "--help")
    assert ended.returncode == 0
    assert "--max-steps" in ended.stdout


def test_dry_run_shows_every_value_and_where_it_is_from(az: Az, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("loss: {name: ipo, tau: 0.2}\nlr: 1.0e-3\nbatch-size: 8\nmicro-batch-size: 8\n")
    words = ["run", "--recipe", str(recipe), "--robust", "drdpo", "--robust.beta_prime", "0.5", "--lr=2e-3"]
    words += ["--dropout", "--track", "tensorboard,wandb", "--loss.logps", "sum", "--dry-run"]
    ended = az(*words)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    origin = f"recipe:{recipe}"
    for row in (
        ["loss.tau", "0.2", origin],
        ["loss.logps", "sum", "flag"],
        ["robust.drdpo.beta_prime", "0.5", "flag"],
        ["lr", "0.002", "flag"],
        ["batch-size", "8", origin],
        ["dropout", "yes", "flag"],
        ["track", "tensorboard,wandb", "flag"],
        ["model", "sandbox", "recipe:sandbox"],
        ["seed", "0", "default"],
    ):
        assert row in lines
    plan = json.loads(az(*words, "--json").stdout)
    assert plan["loss"]["options"]["tau"] == {"value": 0.2, "from": origin}
    assert plan["settings"]["lr"] == {"value": 0.002, "from": "flag"}


def test_a_need_of_options_brings_the_reward_and_its_options(az_here: Az, tmp_path: Path) -> None:
    plugin = tmp_path / "by_option.py"
    plugin.write_text(
        "from alignzoo.plugin import Card, Options, hookimpl\n"
        "from pydantic import Field\n\n"
        "class Judged(Options):\n"
        '    judged: bool = Field(False, description="reads scores")\n'
        "    def needs(self):\n"
        '        return frozenset({"reward"}) if self.judged else frozenset()\n\n'
        "@hookimpl\n"
        "def alignzoo_methods():\n"
        '    facts = {"kind": "robust", "summary": "s", "formula": "f", "target": "a:B", "options": Judged}\n'
        '    return [Card(name="judging", **facts)]\n'
    )
    words = ["run", "--plugin", str(plugin), "--robust", "judging", "--dry-run"]
    assert "--reward.probe" not in az_here(*words, "--help").stdout
    recipe = tmp_path / "judged.yaml"
    recipe.write_text("robust: [{name: judging, judged: true}]\n")
    assert "--reward.probe" in az_here(*words[:3], "--recipe", str(recipe), "--help").stdout
    for flag in ("--robust.judged", "--robust.judging.judged"):
        assert "--reward.probe" in az_here(*words, flag, "--help").stdout
        assert "reward.probe" in az_here(*words, flag).stdout


def test_wrapper_options_reach_the_wrapper_that_is_named(az_here: Az) -> None:
    words = ["--loss", "drdpo", "--robust.drdpo.beta_prime", "0.25", "--dry-run", "--json"]
    plan = json.loads(az_here("run", *words).stdout)
    assert plan["robust"][0]["options"]["beta_prime"]["value"] == 0.25
    assert plan["notes"] == ["--loss drdpo is short for --loss dpo --robust drdpo"]


def test_a_plan_says_which_of_its_methods_are_experimental(az_here: Az) -> None:
    notes = json.loads(az_here("run", "--loss", "chi-po", "--dry-run", "--json").stdout)["notes"]
    assert [note.partition(" (")[0] for note in notes] == ["loss chi-po is experimental"]
    assert json.loads(az_here("run", "--loss", "dpo", "--dry-run", "--json").stdout)["notes"] == []


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("--loss dpi", "unknown loss 'dpi'", "did you mean dpo"),
        ("--loss dpi --loss.anything 3 --loss.switch --lr 1", "unknown loss 'dpi'", "did you mean dpo"),
        ("--robust drpdo --robust.drpdo.beta 1", "unknown robust 'drpdo'", "did you mean drdpo"),
        ("--geometry drdpo", "unknown geometry 'drdpo'", "of that name"),
        ("--loss sigmoidnorm", "unknown loss 'sigmoidnorm'", "did you mean sigmoid-norm"),
        ("--loss-type ipo", "unknown option --loss-type", "did you mean --loss?"),
        ("--label-smoothing 0.1", "unknown option --label-smoothing", "did you mean --robust cdpo?"),
        ("--loss.label_smoothing 0.1", "unknown option --loss.label_smoothing", "did you mean --robust cdpo?"),
        ("--loss.betta 0.1", "unknown option --loss.betta", "did you mean --loss.beta"),
        ("--loss.sft.weight 0.3", "--loss.sft.weight: no loss 'sft' in this run", "add --loss sft"),
        ("--loss.ipo.beta 0.3", "--loss.ipo.beta: no loss 'ipo' in this run", "add --loss ipo"),
        ("--loss dpo,sft", "'dpo,sft' is not one loss but 2", "repeat the flag: --loss dpo --loss sft"),
        ("--model sandbx --data sandbox", "--model sandbx: no plugin provides it", "did you mean sandbox?"),
        ("--model sandbox --data sandbx", "--data sandbx: no plugin provides it", "did you mean sandbox?"),
        ("--loss.beta=0", "--loss.beta: input should be greater than 0", "`alignzoo info dpo`"),
        ("--loss ipo --loss.logps mean", "--loss.logps: input should be 'average' or 'sum'", ""),
        ("--robust.beta_prime 1", "unknown option --robust.beta_prime", "add --robust drdpo"),
        ("--geometry.rho 1", "unknown option --geometry.rho", "the geometry here is plain; add --geometry "),
        ("--max-stpes 3", "unknown option --max-stpes", "did you mean --max-steps"),
        ("--lr fast", "--lr: input should be a valid number", ""),
        ("--precision fp8", "--precision: input should be 'auto', 'fp32' or 'bf16'", ""),
        ("--label-noise 2", "--label-noise: input should be less than or equal to 1", ""),
        ("--max-length 8 --max-prompt-length 8", "leaves no room for a response", ""),
        ("--track dvclive", "unknown tracker 'dvclive'", ""),
        ("--recipe sandbx --loss.x 1", "no recipe 'sandbx'", "did you mean sandbox?"),
        ("--loss DPO", "unknown loss 'DPO'", "did you mean dpo?"),
        ("--loss grpo", "unknown loss 'grpo'", "`alignzoo ls loss` lists all "),
        ("--reward zzz", "unknown reward 'zzz'", "known: column, hf, probe; `alignzoo new reward NAME` creates one"),
        ("--geometry shapo", "unknown geometry 'shapo'", "did you mean shapo-reward or shapo-token?"),
        ("--output-dir runs/a", "unknown option --output-dir", "did you mean --out?"),
        ("--learning_rate=1", "unknown option --learning_rate", "did you mean --lr?"),
        ("--loss dpo --loss ipo --loss.weight 2", "--loss.weight: name the method it belongs to", "--loss.ipo.weight"),
        ("--reward hf --reward=column", "--reward takes one value but was given 2 times", "keep one of them"),
        ("--lr 1 --lr 2 --lr=3", "--lr takes one value but was given 3 times", "keep one of them"),
        ("--loss.beta 1 --loss.beta 1", "--loss.beta takes one value but was given 2 times", "keep one of them"),
        ("--packing --no-packing", "--packing takes one value but was given 2 times", "keep one of them"),
        ("--resume here --resume there", "--resume takes one value but was given 2 times", "keep one of them"),
        ("--lr nan", "--lr: input should be a finite number", ""),
        ("--lr", "option '--lr' requires an argument", "--help"),
        ("somewhere", "got unexpected extra argument (somewhere)", "--help"),
        (
            "--geometry shapo-reward --reward hf",
            "--reward hf needs --reward.model: hub id or folder",
            "`alignzoo info hf`",
        ),
        ("--geometry shapo-reward --reward.k 3", "unknown option --reward.k", "did you mean --robust.k?"),
        ("--resume here --reward.sign -1", "--resume cannot be combined with --reward.sign", "leave them out"),
        ("--resume here --geometry.alpha 1 --reward.sign=-1", "--geometry.alpha, --reward.sign", "leave them out"),
        (
            "--resume here --geometry.switch --lr 1",
            "--resume cannot be combined with --geometry.switch",
            "leave them out",
        ),
        ("--resume here --loss ipo --lr 1 --recipe x --dry-run", "--loss, --lr, --recipe, --dry-run", "keeps its plan"),
    ],
)
def test_wrong_words_exit_2(az_here: Az, words: str, message: str, hint: str) -> None:
    ended = az_here("run", "--json", *words.split())
    assert ended.returncode == 2
    assert message in ended.stderr
    assert hint in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "\x1b" not in ended.stderr
    error = json.loads(ended.stdout)["error"]
    assert error["exit_code"] == 2
    assert error["kind"] in ("UsageError", "UnknownNameError")
    assert message in error["message"]


def test_what_may_be_repeated(az_here: Az) -> None:
    words = "--robust drdpo --observe a --json --json --lr 1 --lr 2 --help"
    assert az_here("run", *words.split()).returncode == 0
    plan = az_here("run", "--geometry", "sam", "--geometry", "ema", "--json", "--json", "--dry-run")
    assert json.loads(plan.stdout)["companions"][0]["name"] == "ema"
    twice = az_here("run", "--geometry", "sam", "--geometry", "sam", "--dry-run")
    assert (twice.returncode, twice.stderr.splitlines()[0]) == (3, "error: --geometry sam is named twice")


@pytest.mark.parametrize("words", ["--loss dpi", "--loss.beta 0", "--loss.betta 1", "--lr fast"])
def test_the_process_ends_with_exit_2(az: Az, words: str) -> None:
    ended = az("run", *words.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ")


def test_incompatible_methods_exit_3(az: Az) -> None:
    ended = az("run", "--geometry", "shapo-token", ACCELERATE_USE_DEEPSPEED="true")
    assert ended.returncode == 3
    assert "shard with FSDP2" in ended.stderr


def test_debug_shows_the_traceback(az_here: Az) -> None:
    assert "Traceback" in az_here("run", "--loss", "dpi", "--debug").stderr
