"""Prompts: by the chat template, and without one as lm-eval sends them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from alignzoo.errors import DataError
from alignzoo.generate.prompts import Prompting

ASK = [{"role": "user", "content": "Hi"}]
TALK = [*ASK, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye"}]
OPEN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[me]{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + OPEN
SILENT = OPEN.replace("messages %}", "messages if m.role != 'system' %}")
IN_TURN = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + OPEN
)


def with_template(tokenizer: Any, template: str | None) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def test_the_chat_template_writes_the_prompt(tokenizer: Any) -> None:
    prompting = Prompting(with_template(tokenizer, OPEN), system="Be brief.")
    assert prompting.described == "the tokenizer's chat template"
    assert prompting.text(TALK) == "[system]Be brief.[user]Hi[assistant]Yes?[user]Bye[me]"
    own = [{"role": "system", "content": "Own."}, *ASK]
    assert prompting.text(own) == "[system]Own.[user]Hi[me]"
    assert tokenizer.decode(prompting.ids(ASK)) == "[system]Be brief.[user]Hi[me]"


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT, IN_TURN])
def test_a_template_without_system_role_gets_the_system_prompt_in_the_first_turn(template: str, tokenizer: Any) -> None:
    prompting = Prompting(with_template(tokenizer, template), system="Be brief.")
    assert prompting.text(ASK) == "[user]Be brief.\n\nHi[me]"
    assert "the system prompt begins the first user message" in prompting.described


def test_messages_that_the_template_rejects_are_reported(tokenizer: Any) -> None:
    prompting = Prompting(with_template(tokenizer, IN_TURN))
    with pytest.raises(DataError, match=r"rejects messages with the roles user, user: roles must alternate"):
        prompting.text([*ASK, *ASK])
    with pytest.raises(DataError, match="at least one message"):
        prompting.text([])


def test_without_a_template_one_message_is_its_text_and_more_are_a_transcript(tokenizer: Any) -> None:
    prompting = Prompting(with_template(tokenizer, None))
    assert prompting.text(ASK) == "Hi"
    assert prompting.text(TALK) == "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Bye\n\nAssistant:"
    assert "no chat template" in prompting.described
    assert Prompting(with_template(tokenizer, None), system="Be brief.").text(ASK) == "Be brief.\n\nHi"


def test_ids_are_those_of_lm_eval(tokenizer: Any, llama: Any) -> None:
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    adds_bos = copy.deepcopy(tokenizer)
    adds_bos.bos_token = "<turn>"
    adds_bos.backend_tokenizer.post_processor = TemplateProcessing(
        single="<turn> $A", special_tokens=[("<turn>", adds_bos.bos_token_id)]
    )
    for kind in (tokenizer, adds_bos):
        lm = HFLM(pretrained=llama, tokenizer=copy.deepcopy(kind), batch_size=1)
        for text in ("Hi", "<turn>Hi"):
            assert Prompting(kind).encode(text) == lm.tok_batch_encode([text])[0][0].tolist()
