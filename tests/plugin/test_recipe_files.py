"""Files of recipes that are no recipe: each fault is named with its file and line, and nothing is read in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignzoo.base.safe_yaml import MOST_BYTES
from alignzoo.errors import UsageError
from alignzoo.plan.recipe import flatten, read_recipe
from alignzoo.plan.resolve import require, resolve


def refusal(tmp_path: Path, content: str | bytes) -> UsageError:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as error:
        require(resolve([read_recipe(str(path))]))
    return error.value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("lr: 1\nseed: 2\nlr: 3", "mine.yaml:3: the key 'lr' is already on line 1"),
        ("loss: {name: dpo, beta: 1, beta: 2}", "mine.yaml:1: the key 'beta' is twice on this line"),
        ("seed: 1\nlr: " + "[" * 3000 + "]" * 3000, "mine.yaml:2: nested more than 50 levels deep"),
        ("lr: " + "{a: " * 50_000, "mine.yaml:1: nested more than 50 levels deep"),
        ("lr: &x 1\nseed: *x", "mine.yaml:2: the alias *x is not supported"),
        ("lr: &x 1\nloss: {<<: {name: dpo}}", "mine.yaml:2: the key '<<' is not a string"),
        ("lr: !!python/object/apply:os.system [ls]", "mine.yaml:1: the tag '!!python/object/apply:os.system'"),
        ('lr: !!binary "AAA="', "mine.yaml:1: the tag '!!binary'"),
        ("lr: !!int x", "mine.yaml:1: 'x' is not a valid int"),
        ("lr: !!bool x", "mine.yaml:1: 'x' is not a valid bool"),
        ("\nseed: " + "9" * 5000, "mine.yaml:2: '999"),
        ("lr: 1\n1: 2", "mine.yaml:2: the key '1' is not a string"),
        ("? [a, b]\n: 2", "mine.yaml:1: the key here is not a string"),
        ("seed: 1\nout: a\0b", "mine.yaml:2: '\\x00' is not a printable character"),
        ('seed: 1\nout: "a\\0b"', "mine.yaml:2: a value contains a NUL"),
        ('seed: 1\nout: "\\U00110000"', "mine.yaml:2: "),
        (b"seed: 1\nout: \xff", "mine.yaml:2: not UTF-8 text"),
        ("lr: 1\n---\nlr: 2", "mine.yaml:2: expected a single document"),
        ("lr: {", "mine.yaml:1: "),
        ("out: " + "x" * MOST_BYTES, "mine.yaml: larger than "),
        ("", "a recipe must be a mapping of settings, this is empty"),
        ("- lr", "a recipe must be a mapping of settings, this is a list"),
        ("max_steps: 3\nmax-steps: 4", "'max-steps' is set twice"),
        ("lora: {r: 4}\nlora.r: 8", "'lora.r' is set twice"),
        ("loss: {name: dpo, beta: 1}\nloss.beta: 2", "'loss.beta' is set twice"),
        ("seed: " + "[1, " * 10 + "2" + "]" * 10, "--seed: input should be a valid integer (got [1, [1, [1, [...]]]])"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, content: str | bytes, words: str) -> None:
    message = refusal(tmp_path, content).message
    assert words in message
    assert len(message) < 300 + len(str(tmp_path))


def test_a_date_is_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("out: 2024-13-45\nmodel: 2024-01-02")
    assert read_recipe(str(path)).values == {"out": "2024-13-45", "model": "2024-01-02"}


@pytest.mark.parametrize(
    ("content", "words", "hint"),
    [
        ("loss.a.b.c: 1", "loss.a.b.c", "--loss.beta"),
        ("loss: {name: dpo, a: {b: {c: 1}}}", "has no option 'a'", "it has: beta"),
        ("geometry: {name: esam, interval.x: 3}", "geometry.interval.x", None),
        ("geometry: shapo-token\ngeometry.interval.x: 3", "geometry.interval.x", "did you mean --geometry.interval?"),
        ("geometry: sam\ngeometry.esam.rho: 3", "geometry.esam.rho: no controller 'esam'", "add --geometry esam"),
        ("robust: drdpo\nrobust.drdpo.beta_prime.z: 2", "robust.drdpo.beta_prime.z", "--robust.beta_prime"),
        ("robust: drdpo\nrobust.betaprime: 2", "robust.betaprime", "--robust.beta_prime"),
        ("lora: {}", "unknown setting 'lora'", "lora.r"),
        ("lora: {r: {x: 1}}", "--lora.r: input should be a valid integer", None),
        ("learning_rate: 1", "unknown setting 'learning-rate'", "did you mean lr?"),
    ],
)
def test_words_that_nothing_reads_are_errors(tmp_path: Path, content: str, words: str, hint: str | None) -> None:
    error = refusal(tmp_path, content)
    assert words in error.message
    assert hint is None or hint in str(error.hint)


def test_options_of_a_method_that_another_layer_replaces_stay_unread(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("loss: {name: ipo, tau: 0.3}\nloss.ipo.logps: sum")
    from alignzoo.plan.recipe import Layer

    plan = require(resolve([read_recipe(str(tmp_path / "mine.yaml")), Layer("flag", {"loss": "dpo"})]))
    assert plan.one("loss").card.name == "dpo"


def test_a_mapping_from_python_is_held_to_the_same() -> None:
    with pytest.raises(UsageError, match="'max-steps' is set twice"):
        flatten({"max_steps": 3, "max-steps": 4}, "the recipe")
