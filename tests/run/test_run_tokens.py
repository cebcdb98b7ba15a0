"""Runs under aggregations that weigh tokens, with guide models where these read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard
from run_helpers import MakeModel, OnTwoRanks, RunFolder, Train, same, tiny_model

from alignzoo.errors import AlignzooError
from alignzoo.runs.execute import resume

Command = Callable[..., list[str]]
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
STEPS: dict[str, Any] = {"max_steps": 4, "eval_every": 2, "geometry": "sam", "save_every": 2}


@pytest.fixture(autouse=True)
def _tiny(words: dict[str, Any], make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(words, "model", str(make_model()))
    monkeypatch.setitem(words, "probe.share", 0.0)


@pytest.fixture
def guides(train: Train) -> dict[str, str]:
    """A model and another one, trained from the policy: the first one's labels are reversed for the second."""
    return {
        "guide": str(train(lr=1e-2).path / "model"),
        "contrast": str(train(lr=1e-2, label_noise=1.0).path / "model"),
    }


def resumed_from_the_middle(whole: RunFolder, to: Path) -> RunFolder:
    """The run, cut back to its checkpoint of step 2 and resumed."""
    shutil.copytree(whole.path, to)
    shutil.rmtree(to / "checkpoints" / "step-00000004")
    shutil.rmtree(to / "model")
    (to / "result.json").unlink()
    return RunFolder(Path(resume(to, reporter=Heard()).folder))


@pytest.mark.parametrize("name", ["sampo", "otpo", "humanline"])
def test_a_resumed_run_is_the_uninterrupted_one(name: str, train: Train, tmp_path: Path) -> None:
    whole = train(aggregation=name, **STEPS)
    assert whole.metrics[0]["loss"] == pytest.approx(0.6931472, abs=1e-5)
    again = resumed_from_the_middle(whole, tmp_path / "again")
    assert again.timeless() == whole.timeless()
    assert same(again.weights, whole.weights)
    assert again.result["after"] == whole.result["after"]


def test_tis_dpo_weighs_by_two_models_and_resumes(train: Train, guides: dict[str, str], tmp_path: Path) -> None:
    heard = Heard()
    whole = train(aggregation="tis-dpo", report=heard, **guides, **STEPS)
    said = "\n".join(heard.notes)
    assert "guide log-probs: " in said
    assert "contrast log-probs: " in said
    again = resumed_from_the_middle(whole, tmp_path / "again")
    assert again.timeless() == whole.timeless()
    assert same(again.weights, whole.weights)
    plain = train(**STEPS)
    assert not same(plain.weights, whole.weights)
    equal = train(aggregation="tis-dpo", **guides, **{"aggregation.low": 1.0, "aggregation.high": 1.0}, **STEPS)
    for here, there in zip(equal.timeless(), plain.timeless(), strict=True):
        assert here == pytest.approx(there, rel=1e-4, abs=1e-4)


def test_a_guide_may_be_an_adapter(train: Train, guides: dict[str, str]) -> None:
    adapter = train(lr=1e-2, **{"lora.r": 2})
    run = train(aggregation="tis-dpo", guide=str(adapter.path / "model"), contrast=guides["contrast"])
    assert all(torch.isfinite(weight).all() for weight in run.weights.values())


def test_the_guides_of_a_resumed_run_must_be_the_same(train: Train, guides: dict[str, str], tmp_path: Path) -> None:
    moved = tmp_path / "guide"
    shutil.copytree(guides["guide"], moved)
    whole = train(aggregation="tis-dpo", guide=str(moved), contrast=guides["contrast"], **STEPS)
    shutil.rmtree(moved)
    shutil.copytree(guides["contrast"], moved)
    with pytest.raises(AlignzooError, match=r"the guide of .* changed since this run started"):
        resumed_from_the_middle(whole, tmp_path / "again")


def test_guide_models_are_asked_for_where_they_are_read_and_nowhere_else(train: Train, guides: dict[str, str]) -> None:
    with pytest.raises(AlignzooError, match="'tis-dpo' reads the log-probs of a contrast model, and there is none"):
        train(aggregation="tis-dpo", guide=guides["guide"])
    with pytest.raises(AlignzooError, match="--guide has no effect here"):
        train(guide=guides["guide"])
    with pytest.raises(AlignzooError, match="--guide /nowhere/at/all"):
        train(aggregation="tis-dpo", guide="/nowhere/at/all", contrast=guides["contrast"])


def test_a_guide_with_another_tokenizer_is_refused(train: Train, guides: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(guides["guide"])
    tokenizer.add_tokens(["<another>"])
    tiny_model("llama", len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id).save_pretrained(tmp_path / "g")
    tokenizer.save_pretrained(tmp_path / "g")
    with pytest.raises(AlignzooError, match=r"--guide .* has another tokenizer than the policy"):
        train(aggregation="tis-dpo", guide=str(tmp_path / "g"), contrast=guides["contrast"])


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["ddp", "fsdp"])
def test_two_ranks_weigh_tokens_as_one_process(
    launch: str, train: Train, command: Command, on_two_ranks: OnTwoRanks, guides: dict[str, str], tmp_path: Path
) -> None:
    """Guides, hidden states and, where weights are whole, a reference that moves."""
    moving = {"geometry": "tr-dpo", "geometry.tr-dpo.interval": 2}
    sharded = {"aggregation": "tis-dpo", **guides}
    runs = {
        "ddp": [{**sharded, **moving}, {"aggregation": "otpo", **moving}],
        "fsdp": [sharded, {"aggregation": "otpo"}, {"aggregation": "sampo"}],
    }
    for i, methods in enumerate(runs[launch]):
        given = {"max-steps": 4, "eval-every": 2, "micro-batch-size": 2, "optimizer": "sgd", **methods}
        one = train(**given)
        words = command(tmp_path / f"two-{i}", **given)
        ended = on_two_ranks(*words, **(FSDP2 if launch == "fsdp" else {}))
        assert ended.returncode == 0, ended.stderr
        for here, there in zip(RunFolder(tmp_path / f"two-{i}").timeless(), one.timeless(), strict=True):
            assert here == pytest.approx(there, rel=1e-4, abs=1e-4)
