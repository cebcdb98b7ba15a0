"""The rewards: what they score, what they refuse, and the contract on a real classifier."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_rewards.classifier import load_scorer
from heard import Heard
from reward_helpers import by_hand, save_classifier
from safetensors.torch import load_file

from alignzoo import load_method
from alignzoo.contract.scoring import Response, RewardContext
from alignzoo.errors import DataError, ModelError, UsageError
from alignzoo.plugin import registry
from alignzoo.probe.probe import Probe
from alignzoo.report import Progress, Reporter
from alignzoo.testing import check_method
from alignzoo.testing.tiny import tiny_model

MESSAGES = [{"role": "user", "content": "Where is Rome?"}], [{"role": "assistant", "content": "In Italy ."}]
GIVEN = [
    Response(0, "How do I open a jar?", " Turn the lid .", [5, 6, 7, 2]),
    Response(0, "How do I open a jar?", " No .", [5, 6, 2]),
    Response(1, *MESSAGES, [9, 8, 2]),
]


def no_probe(given: str | None) -> Probe:
    raise AssertionError("this reward needs no probe")


def ready(
    name: str, *, policy: Any = None, probe: Any = no_probe, report: Reporter | None = None, **options: Any
) -> Any:
    """A reward with these options, set up."""
    reward = load_method("reward", name, **options)
    reward.setup(RewardContext(policy, "w", torch.device("cpu"), 0, report or Reporter(), probe))
    return reward


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("rewards") / "classifier")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_hf_is_the_classifier_on_its_own_template(classifier: Path, sign: int, batch_size: int) -> None:
    found = ready("hf", model=str(classifier), sign=sign, batch_size=batch_size).scores(GIVEN)
    turns = [
        ("How do I open a jar?", "Turn the lid ."),
        ("How do I open a jar?", "No ."),
        ("Where is Rome?", "In Italy ."),
    ]
    assert found == pytest.approx([sign * by_hand(classifier, *turn) for turn in turns], rel=1e-4, abs=1e-5)


def test_hf_without_a_template_reads_plain_text(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "plain", template=None)
    reward = ready("hf", model=str(folder))
    expected = [by_hand(folder, str(r.prompt), str(r.reply), template=False) for r in GIVEN[:2]]
    assert reward.scores(GIVEN[:2]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    with pytest.raises(ModelError, match=r"chat messages, but the tokenizer of .*plain has no chat template"):
        reward.scores(GIVEN[2:])


def test_hf_without_a_pad_token_reads_the_last_token(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "padless", pad=False)
    reward = ready("hf", model=str(folder))
    together = reward.scores(GIVEN)
    assert [score for one in GIVEN for score in ready("hf", model=str(folder)).scores([one])] == pytest.approx(
        together, rel=1e-4
    )
    assert together[1] == pytest.approx(by_hand(folder, "How do I open a jar?", "No ."), rel=1e-4)


def test_hf_reads_no_further_than_it_is_told_and_says_so(classifier: Path) -> None:
    heard = Heard()
    short = ready("hf", report=heard, model=str(classifier), max_length=4).scores(GIVEN)
    assert short[0] == pytest.approx(short[1], rel=1e-4)  # the first four tokens are those of the prompt
    assert heard.warnings == ["responses longer than 4 reward-model tokens are truncated on the right"]


def test_identity_is_that_of_the_content(classifier: Path, tmp_path: Path) -> None:
    same = ready("hf", model=str(save_classifier(tmp_path / "same"))).identity()
    assert ready("hf", model=str(classifier)).identity() == same
    assert ready("hf", model=str(save_classifier(tmp_path / "weights", seed=1))).identity() != same
    assert ready("hf", model=str(save_classifier(tmp_path / "template", template=None))).identity() != same


def test_identity_is_also_that_of_the_config(classifier: Path, tmp_path: Path) -> None:
    """What decides the outputs beside the weights, and not what says where they were saved."""
    given = json.loads((classifier / "config.json").read_text())
    same = ready("hf", model=str(classifier)).identity()
    kept, told = {"transformers_version": "4.0", "_name_or_path": "elsewhere"}, {"rms_norm_eps": 0.5}
    for changes, is_same in ((kept, True), (told, False)):
        folder = tmp_path / str(is_same)
        shutil.copytree(classifier, folder)
        (folder / "config.json").write_text(json.dumps({**given, **changes}))
        assert (ready("hf", model=str(folder)).identity() == same) is is_same


def test_identity_is_also_that_of_the_models_own_code(classifier: Path, tmp_path: Path) -> None:
    def loaded(code: str, trust: bool) -> str:
        (folder / "modeling_own.py").write_text(code)
        return load_scorer(str(folder), trust_remote_code=trust, device=torch.device("cpu")).identity()

    folder = tmp_path / "coded"
    shutil.copytree(classifier, folder)
    assert loaded("a = 1", True) == loaded("a = 1", True) != loaded("a = 2", True)
    assert loaded("a = 1", False) == loaded("a = 2", False)  # not run


def test_what_is_no_reward_model_is_refused(tmp_path: Path, classifier: Path) -> None:
    two = save_classifier(tmp_path / "two", labels=2)
    with pytest.raises(ModelError, match=r"two has 2 outputs \(LABEL_0, LABEL_1\), but a reward model has one"):
        ready("hf", model=str(two))
    with pytest.raises(ModelError, match="nowhere: no such folder"):
        ready("hf", model=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config.json in that folder"):
        ready("hf", model=str(tmp_path / "empty"))
    headless = save_classifier(tmp_path / "headless")
    drop_head(headless)
    with pytest.raises(ModelError, match=r"not a complete reward model: it lacks score.weight"):
        ready("hf", model=str(headless)).scores(GIVEN)
    bare = save_classifier(tmp_path / "bare")
    for file in bare.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="cannot load the tokenizer of the reward model"):
        ready("hf", model=str(bare)).scores(GIVEN)
    pickled = save_classifier(tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model.safetensors"):
        ready("hf", model=str(pickled)).scores(GIVEN)


def test_options_without_a_meaning_are_refused() -> None:
    for name, options in (("hf", {"model": "x"}), ("column", {})):
        for sign in (0, 2, "-2", "up"):
            with pytest.raises(UsageError, match=r"--reward.sign: input should be 1 or -1"):
                load_method("reward", name, sign=sign, **options)
        assert load_method("reward", name, sign="-1", **options).options.sign == -1
    with pytest.raises(UsageError, match=r"--reward.model: string should have at least 1 character"):
        load_method("reward", "hf", model="")
    with pytest.raises(
        UsageError, match=r"^--reward hf needs --reward.model: hub id or folder of a sequence classifier"
    ):
        load_method("reward", "hf")


def test_what_is_no_classifier_is_told_what_it_is(tmp_path: Path, classifier: Path) -> None:
    with pytest.raises(ModelError, match=r"sandbox is a language model, not a classifier \(LlamaForCausalLM\)"):
        ready("hf", model="sandbox")
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        with pytest.raises(ModelError) as found:
            ready("hf", model=str(tmp_path / name))
        assert "gguf" not in str(found.value.hint)
    with pytest.raises(ModelError, match=r"m.gguf is a .gguf file"):
        ready("hf", model="m.gguf")
    bare = save_classifier(tmp_path / "bare")
    for file in bare.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError) as found:
        ready("hf", model=str(bare)).scores(GIVEN)
    assert not found.value.message.endswith(":")


def test_hf_names_the_model_whose_scores_are_not_finite(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = save_classifier(tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "score.weight": weights["score.weight"] * float("nan")},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelError, match=r"the reward model .*broken returned nan for row 0"):
        ready("hf", model=str(folder)).scores(GIVEN)


def drop_head(folder: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_columns_of_the_data_are_the_scores() -> None:
    given = [Response(0, "p", "r", [1], score=2.5), Response(0, "p", "s", [2], score=-1.0)]
    assert ready("column").scores(given) == [2.5, -1.0]
    assert ready("column", sign=-1).scores(given) == [-2.5, 1.0]
    with pytest.raises(DataError, match="a response of row 7 has no score"):
        ready("column").scores([*given, Response(7, "p", "t", [3])])


@pytest.mark.parametrize("pooling", ["mean", "last", "max"])
@pytest.mark.parametrize("layer", [1, 2])
def test_the_probe_scores_by_its_own_logits(layer: int, pooling: Any) -> None:
    from alignzoo.probe.probe import hidden_features

    model = tiny_model()
    draw = torch.Generator().manual_seed(0)
    probe = Probe(
        torch.randn(2, 32, generator=draw), torch.randn(2, generator=draw), {"layer": layer, "pooling": pooling}
    )
    model.train()
    found = ready("probe", policy=model, probe=lambda given: probe).scores(GIVEN)
    assert model.training
    model.eval()
    ids = [list(response.ids) for response in GIVEN]
    [features] = hidden_features(model, ids, layers=[layer], pooling=pooling, bar=Progress())
    logits = features @ probe.weight.T + probe.bias  # safe, unsafe
    assert found == pytest.approx((logits[:, 0] - logits[:, 1]).tolist(), rel=1e-4, abs=1e-5)


def test_the_probes_identity() -> None:
    policy = tiny_model()

    def identity(weights: str = "w", *, folder: str | None = None, by: float = 0.0, **facts: Any) -> str:
        made = Probe(torch.ones(2, 4) + by, torch.zeros(2), facts)
        reward = load_method("reward", "probe", probe=folder)
        reward.setup(RewardContext(policy, weights, torch.device("cpu"), 0, Reporter(), lambda given: made))
        return str(reward.identity())

    assert identity(data="d") == identity(data="d", by=1e-7)  # trained again elsewhere
    assert (
        len({identity(), identity("other"), identity(data="d"), identity(folder="x"), identity(folder="x", by=1.0)})
        == 5
    )
    before = identity()
    policy.config.rms_norm_eps = 0.5
    assert identity() != before


def test_hf_keeps_the_contract(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that exists in the place of the example."""
    other = save_classifier(tmp_path / "other-model", seed=3)
    monkeypatch.chdir(tmp_path)
    card = registry().find("reward", "hf")
    field = card.options.model_fields["model"]  # type: ignore[union-attr]
    monkeypatch.setattr(field, "examples", [str(classifier), str(other)])
    report = check_method(card)  # type: ignore[arg-type]
    assert report.ok, [outcome for outcome in report.outcomes if outcome.status == "failed"]
    assert {outcome.status for outcome in report.outcomes} == {"passed"}
