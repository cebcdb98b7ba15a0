"""The judge `classifier`: scores as transformers gives them, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from heard import Heard
from judge_helpers import answered, ready, save_judge_model, verdicts
from reward_helpers import save_classifier

from alignzoo.contract.judge import Answered
from alignzoo.errors import ModelError, UsageError

RESPONSES = ("Turn the lid .", "No .", "I open a jar with the lid and turn the lid . Turn it .")


@pytest.fixture(scope="module")
def two_labels(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = save_classifier(tmp_path_factory.mktemp("judges") / "two", labels=2)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.id2label, config.label2id = {0: "ANSWER", 1: "REFUSAL"}, {"ANSWER": 0, "REFUSAL": 1}
    config.save_pretrained(folder)
    return str(folder)


def logits(model: str, text: str, *, special: bool) -> torch.Tensor:
    """One text's outputs, straight from transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        return network(**tokenizer(text, return_tensors="pt", add_special_tokens=special)).logits[0].double()


def conversation(model: str, answer: Answered) -> str:
    messages = [{"role": "user", "content": answer.request}, {"role": "assistant", "content": answer.response}]
    return str(transformers.AutoTokenizer.from_pretrained(model).apply_chat_template(messages, tokenize=False))


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_score_is_the_softmax_of_the_label(two_labels: str, batch_size: int) -> None:
    answers = answered(*RESPONSES)
    judge = ready("classifier", model=two_labels, label="refusal", batch_size=batch_size)
    for answer, verdict in zip(answers, judge.verdicts(answers), strict=True):
        expected = logits(two_labels, conversation(two_labels, answer), special=False).softmax(0)[1].item()
        assert verdict.score == pytest.approx(expected, abs=1e-5)
        assert verdict.positive == (expected >= 0.5)


def test_the_label_can_be_an_index_and_the_threshold_is_the_users(two_labels: str) -> None:
    answers = answered(*RESPONSES)
    by_name = verdicts("classifier", answers, model=two_labels, label="ANSWER")
    by_index = verdicts("classifier", answers, model=two_labels, label="0", threshold=0.999999)
    assert [one.score for one in by_name] == [one.score for one in by_index]
    assert [one.positive for one in by_index] == [False, False, False]


def test_one_output_is_a_sigmoid_and_the_response_can_be_read_alone(tmp_path: Path) -> None:
    model = str(save_classifier(tmp_path / "one"))
    found = verdicts("classifier", answered(*RESPONSES), model=model, reads="response", measures="harm")
    for text, verdict in zip(RESPONSES, found, strict=True):
        assert verdict.score == pytest.approx(logits(model, text, special=True).sigmoid()[0].item(), abs=1e-5)


def test_without_a_chat_template_request_and_response_are_a_pair(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    tokenizer = transformers.AutoTokenizer.from_pretrained(save_classifier(tmp_path / "one", template=None))
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    answers = answered(*RESPONSES)
    found = verdicts("classifier", answers, model=str(folder), label="1")
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for answer, verdict in zip(answers, found, strict=True):
        with torch.no_grad():
            output = network(**tokenizer(answer.request, answer.response, return_tensors="pt")).logits[0]
        assert verdict.score == pytest.approx(output.softmax(0)[1].item(), abs=1e-5)


def test_truncated_texts_are_counted(two_labels: str) -> None:
    heard = Heard()
    judge = ready("classifier", model=two_labels, label="1", max_length=20, report=heard)
    assert len(list(judge.verdicts(answered(*RESPONSES)))) == 3
    assert any("of 3 texts were longer than 20 tokens" in text for text in heard.warnings)


@pytest.mark.parametrize(
    ("label", "message"), [(None, "has 2 labels: which one is positive"), ("refusel", "has no label 'refusel'")]
)
def test_the_positive_label_must_be_known(two_labels: str, label: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        ready("classifier", model=two_labels, label=label)
    assert "REFUSAL" in str(error.value)


def test_what_is_no_classifier_is_refused(tmp_path: Path, two_labels: str) -> None:
    language_model = save_judge_model(tmp_path / "lm", {"": "x"})
    with pytest.raises(ModelError, match="is a language model, not a classifier"):
        ready("classifier", model=str(language_model))
    headless = tmp_path / "headless"
    transformers.AutoModel.from_pretrained(two_labels).save_pretrained(headless)
    transformers.AutoTokenizer.from_pretrained(two_labels).save_pretrained(headless)
    with pytest.raises(ModelError, match="is not a complete judge: it lacks"):
        ready("classifier", model=str(headless), label="1")
    with pytest.raises(ModelError, match="is not a complete language model: it lacks"):
        ready("llama-guard", model=two_labels)
    with pytest.raises(ModelError, match="no such folder"):
        ready("classifier", model="./no-such-folder")


def test_a_classifier_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "one")
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer of the judge"):
        ready("classifier", model=str(folder))
