"""Joint tokenisation: one boundary, one BOS, one EOS, no silent cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from data_examples import CHATML, MISTRAL, THINKING, assistant, system, tokenized, user

from alignzoo.data.rendering import render_prompt
from alignzoo.data.rows import Drop, PreferenceRow, PromptRow, Text, canonical
from alignzoo.data.tokens import RowTokenizer, TokenizedRow
from alignzoo.errors import ModelError

LONG = 10_000
CHAT = PreferenceRow([user("Hi?")], [assistant("yes")], [assistant("no, never")])
PLAIN = PreferenceRow("Hi?", " yes", " no, never")
TRANSCRIPT = replace(CHAT, transcript=True)


def pair(row: PreferenceRow, tokenizer: Any, max_length: int = LONG, max_prompt_length: int = LONG) -> TokenizedRow:
    made = tokenized(row, tokenizer, max_length, max_prompt_length)
    assert isinstance(made, TokenizedRow), made
    return made


def whole_row(row: PromptRow, tokenizer: Any, max_length: int = LONG) -> TokenizedRow:
    made = RowTokenizer(tokenizer).tokenize([row], max_length, LONG)[0]
    assert isinstance(made, TokenizedRow), made
    return made


def dropped(row: PreferenceRow, tokenizer: Any, max_length: int = LONG, max_prompt_length: int = LONG) -> str:
    made = tokenized(row, tokenizer, max_length, max_prompt_length)
    assert isinstance(made, Drop), made
    return made.reason


def generated_from(prompt: Text, tokenizer: Any) -> list[int]:
    """The ids that generation starts from."""
    return RowTokenizer(tokenizer).encode([render_prompt(prompt, tokenizer)])[0]


def test_chat_template_text_is_what_is_tokenised_and_ends_at_the_end_of_turn(chatml: Any) -> None:
    made = pair(CHAT, chatml)
    assert chatml.decode(made.prompt_ids) == "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.decode(made.response_ids[0]) == "yes<|im_end|>"
    assert chatml.decode(made.response_ids[1]) == "no, never<|im_end|>"
    assert (made.prompt_text, made.response_text[0]) == (chatml.decode(made.prompt_ids), "yes<|im_end|>")
    assert not made.boundary_moved
    assert not made.truncated


def test_end_of_turn_counts_as_the_eos_and_stays_single(chatml: Any) -> None:
    written_twice = replace(CHAT, chosen=[assistant("yes<|im_end|>")])
    assert pair(written_twice, chatml).response_ids[0] == pair(CHAT, chatml).response_ids[0]
    assert chatml.eos_token_id not in pair(CHAT, chatml).response_ids[0]


def test_a_template_that_ends_no_turn_gets_the_eos(chatml: Any) -> None:
    chatml.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    made = pair(CHAT, chatml)
    assert chatml.decode(made.response_ids[0]).endswith("yes\n<|endoftext|>")
    assert made.response_ids[0].count(chatml.eos_token_id) == 1


@pytest.mark.parametrize("row", [CHAT, PLAIN])
def test_exactly_one_bos_where_template_and_tokenizer_both_add_it(row: PreferenceRow, llama: Any) -> None:
    made = pair(row, llama)
    ids = made.prompt_ids + made.response_ids[0]
    assert ids[0] == llama.bos_token_id
    assert ids.count(llama.bos_token_id) == 1
    assert made.response_ids[0][-1] == llama.eos_token_id
    assert made.response_ids[0].count(llama.eos_token_id) == 1


def test_exactly_one_bos_without_a_template_and_where_the_template_forgets_it(llama: Any) -> None:
    llama.chat_template = None
    plain = pair(PLAIN, llama).prompt_ids
    assert plain == [llama.bos_token_id, *llama("Hi?", add_special_tokens=False)["input_ids"]]
    assert pair(replace(PLAIN, prompt="<s>Hi?"), llama).prompt_ids == plain
    llama.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert pair(CHAT, llama).prompt_ids == plain


def test_no_bos_where_the_tokenizer_uses_none(gpt2: Any, chatml: Any) -> None:
    assert pair(PLAIN, gpt2).prompt_ids == gpt2("Hi?")["input_ids"]
    assert pair(CHAT, chatml).prompt_ids[0] == chatml.convert_tokens_to_ids("<|im_start|>")


def test_plain_text_is_joined_and_gets_one_eos_even_if_it_has_one(gpt2: Any) -> None:
    made = pair(PLAIN, gpt2)
    assert made.prompt_ids + made.response_ids[0] == [*gpt2("Hi? yes")["input_ids"], gpt2.eos_token_id]
    assert pair(replace(PLAIN, chosen=" yes<|endoftext|>"), gpt2).response_ids[0] == made.response_ids[0]
    assert (made.prompt_text, made.response_text[0], made.response_text[1]) == ("Hi?", " yes", " no, never")


def test_text_columns_become_one_user_and_one_assistant_message(chatml: Any) -> None:
    assert pair(PLAIN, chatml) == pair(CHAT, chatml)


def test_transcripts_go_through_the_template_or_back_to_plain_text(chatml: Any, gpt2: Any) -> None:
    assert pair(TRANSCRIPT, chatml) == pair(CHAT, chatml)
    made = pair(TRANSCRIPT, gpt2)
    assert made.prompt_text + made.response_text[0] == "\n\nHuman: Hi?\n\nAssistant: yes"
    assert gpt2.decode(made.prompt_ids) == "\n\nHuman: Hi?\n\nAssistant:"


def test_chat_messages_without_a_template_say_what_to_do(gpt2: Any) -> None:
    with pytest.raises(ModelError, match="no chat template") as error:
        tokenized(CHAT, gpt2, LONG, LONG)
    assert "instruction-tuned" in (error.value.hint or "")


def test_boundary_that_merges_moves_for_both_sides_alike(metaspace: Any) -> None:
    made = pair(PreferenceRow("Q: ", "yes", "no"), metaspace)
    decode = metaspace.convert_ids_to_tokens
    assert made.boundary_moved
    assert decode(made.prompt_ids) == ["<s>", "Q", ":"]
    assert decode(made.response_ids[0]) == ["▁yes", "</s>"]
    assert decode(made.response_ids[1]) == ["▁no", "</s>"]
    one_side = pair(PreferenceRow("Q: ", "yes", "ab"), metaspace)
    assert one_side.boundary_moved
    assert decode(one_side.response_ids[1]) == ["▁", "a", "b", "</s>"]
    assert not pair(PreferenceRow("Q:", " yes", " no"), metaspace).boundary_moved


def test_template_whose_generation_prompt_is_no_prefix_moves_the_boundary(chatml: Any) -> None:
    chatml.chat_template = CHATML.replace("assistant\n{% endif", "assistant\n<think>{% endif")
    made = pair(CHAT, chatml)
    assert made.boundary_moved
    assert chatml.decode(made.prompt_ids) == "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"


DIALOGUE = [user("Hi?"), assistant("Hello."), user("And you?")]


@pytest.mark.parametrize("turns", [[user("Hi?")], DIALOGUE, [user("Hi?"), assistant("Hello."), user("Hi?")]])
def test_a_prompt_that_the_template_rewrites_before_a_reply_stays_what_is_generated_from(
    turns: list[dict[str, str]], llama: Any
) -> None:
    llama.chat_template = MISTRAL
    made = pair(replace(CHAT, prompt=[system("Be brief."), *turns]), llama)
    prompt = generated_from([system("Be brief."), *turns], llama)
    assert (made.prompt_ids, made.prompt_restored, made.boundary_moved) == (prompt, True, False)
    assert made.prompt_text.endswith(f"[INST] Be brief.\n\n{turns[-1]['content']}[/INST]")
    assert (llama.decode(made.response_ids[0]), llama.decode(made.response_ids[1])) == (" yes</s>", " no, never</s>")
    assert dropped(replace(CHAT, prompt=[system("Be brief."), *turns]), llama, max_prompt_length=len(prompt) - 1)
    plain = pair(replace(CHAT, prompt=turns), llama)
    assert (plain.prompt_restored, plain.response_ids[0]) == (False, made.response_ids[0])


@pytest.mark.parametrize(
    "template",
    [
        MISTRAL.replace("{{ m.content }}[/INST]", "{{ m.content }}{% if loop.last %} Think.{% endif %}[/INST]"),
        MISTRAL.replace("{{ m.content }}[/INST]", "{{ m.content if loop.last else '...' }}[/INST]"),
        MISTRAL.replace("{{ m.content }}[/INST]", "{{ m.content | upper }}[/INST]"),
    ],
)
def test_a_rewritten_prompt_whose_last_turn_cannot_be_found_is_dropped(template: str, llama: Any) -> None:
    llama.chat_template = template
    for turns in ([user("Hi?")], DIALOGUE, [user("Hi?"), assistant("Hello."), user("Hi?")]):
        row = replace(CHAT, prompt=[system("Be brief."), *turns])
        assert dropped(row, llama) == "prompt-rewritten-by-chat-template"


def test_templates_that_change_no_more_than_the_announcement_of_the_reply_keep_the_prompt(
    chatml: Any, llama: Any
) -> None:
    llama.chat_template = MISTRAL.replace("loop.last", "loop.first").replace("m.content }}[", "m.content | upper }}[")
    made = pair(replace(CHAT, prompt=[system("Be brief."), *DIALOGUE]), llama)
    assert (made.prompt_restored, llama.decode(made.response_ids[0])) == (False, " yes</s>")
    chatml.chat_template = THINKING
    thought = [user("Hi?"), assistant("<think>\nhm\n</think>\n\nHello."), user("And you?")]
    made = pair(replace(CHAT, prompt=thought, chosen=[assistant("<think>\nso\n</think>\n\nyes")]), chatml)
    assert not made.prompt_restored
    assert "hm" not in made.prompt_text
    assert made.prompt_text.endswith("And you?<|im_end|>\n<|im_start|>assistant\n")
    assert made.response_text[0] == "<think>\nso\n</think>\n\nyes<|im_end|>"
    word = pair(replace(CHAT, prompt=[user("think")]), chatml)  # it is in the announcement of the reply, too
    assert word.prompt_text.endswith("think<|im_end|>\n<|im_start|>assistant\n")


def test_long_prompt_is_dropped_and_never_cut(chatml: Any) -> None:
    size = len(pair(CHAT, chatml).prompt_ids)
    assert pair(CHAT, chatml, max_prompt_length=size).prompt_ids
    assert dropped(CHAT, chatml, max_prompt_length=size - 1) == "prompt-too-long"
    assert dropped(CHAT, chatml, max_length=size) == "prompt-too-long"


def test_long_reply_is_cut_and_counted_and_a_whole_one_keeps_its_eos(chatml: Any) -> None:
    whole = pair(CHAT, chatml)
    needed = len(whole.prompt_ids) + max(len(whole.response_ids[0]), len(whole.response_ids[1]))
    assert pair(CHAT, chatml, max_length=needed) == whole
    cut = pair(CHAT, chatml, max_length=needed - 1)
    assert cut.truncated
    assert cut.response_ids[1] == whole.response_ids[1][:-1]
    assert cut.response_ids[0] == whole.response_ids[0]
    assert cut.prompt_ids == whole.prompt_ids


def test_sides_that_are_one_after_tokenisation_or_truncation(chatml: Any, gpt2: Any) -> None:
    assert dropped(replace(PLAIN, chosen="yes", rejected=" yes "), chatml) == "identical-sides"
    row = replace(PLAIN, chosen=" yes no", rejected=" yes maybe")
    room = len(pair(row, gpt2).prompt_ids) + 1
    assert dropped(row, gpt2, max_length=room) == "identical-after-truncation"
    assert dropped(replace(row, rejected=row.chosen), gpt2, max_length=room) == "identical-sides"


@pytest.mark.parametrize("nothing", ["", "<|endoftext|>"])
def test_replies_without_a_token_of_their_own_are_dropped(nothing: str, gpt2: Any) -> None:
    assert dropped(replace(PLAIN, chosen=nothing), gpt2) == "empty-chosen"
    assert dropped(replace(PLAIN, rejected=nothing), gpt2) == "empty-rejected"


def test_prompt_without_a_token_is_dropped(gpt2: Any) -> None:
    assert dropped(replace(PLAIN, prompt=""), gpt2) == "empty-prompt"


def test_what_the_template_refuses_is_dropped(llama: Any) -> None:
    twice: Text = [user("Hi?"), user("Hello?")]
    assert dropped(replace(CHAT, prompt=twice), llama) == "refused-by-chat-template"


def test_block_of_rows_equals_row_by_row_and_generation_sees_the_training_prompt(chatml: Any) -> None:
    rows = [CHAT, PLAIN, replace(PLAIN, chosen=""), TRANSCRIPT]
    tokenizer = RowTokenizer(chatml)
    assert tokenizer.tokenize([canonical(row) for row in rows], LONG, LONG) == [
        tokenized(row, chatml, LONG, LONG) for row in rows
    ]
    assert tokenizer.tokenize([], LONG, LONG) == []
    assert generated_from(CHAT.prompt, chatml) == pair(CHAT, chatml).prompt_ids


TEXTS = [" yes", " no, never", " I cannot help with that.", "maybe", " y"]
ROWS = {
    "text": PromptRow("ranked", "Hi?", tuple(TEXTS)),
    "messages": PromptRow("ranked", [user("Hi?")], tuple([assistant(text)] for text in TEXTS)),
    "merging": PromptRow("ranked", "Q: ", ("yes", "no", "ab", "x")),
}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        *(("chatml", "text"), ("chatml", "messages"), ("llama", "messages"), ("llama", "text"), ("gpt2", "text")),
        ("metaspace", "merging"),
    ],
)
def test_responses_are_tokenised_as_each_alone_behind_one_prompt(
    name: str, row: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    made = whole_row(ROWS[row], tokenizer)
    alone = [whole_row(replace(ROWS[row], responses=(response,)), tokenizer) for response in ROWS[row].responses]
    assert len(made.prompt_ids) == min(len(one.prompt_ids) for one in alone)
    for ids, text, one in zip(made.response_ids, made.response_text, alone, strict=True):
        assert made.prompt_ids + ids == one.prompt_ids + one.response_ids[0]
        assert made.prompt_text + text == one.prompt_text + one.response_text[0]
    assert all(ids[-1] in RowTokenizer(tokenizer).end_tokens.values() for ids in made.response_ids)
    assert made.boundary_moved == (row == "merging")


def test_the_order_of_responses_changes_their_order_only(metaspace: Any) -> None:
    made = whole_row(ROWS["merging"], metaspace)
    reverse = whole_row(replace(ROWS["merging"], responses=ROWS["merging"].responses[::-1]), metaspace)
    assert reverse == replace(made, response_ids=made.response_ids[::-1], response_text=made.response_text[::-1])


def test_one_long_response_is_cut_and_leaves_the_others_whole(gpt2: Any) -> None:
    whole = whole_row(ROWS["text"], gpt2)
    sizes = [len(ids) for ids in whole.response_ids]
    longest = max(range(len(sizes)), key=sizes.__getitem__)
    cut = whole_row(ROWS["text"], gpt2, max_length=len(whole.prompt_ids) + sizes[longest] - 1)
    assert cut.truncated
    whole.response_ids[longest].pop()
    assert cut.response_ids == whole.response_ids


def test_a_list_with_an_unusable_response_is_dropped(gpt2: Any) -> None:
    row, tokenizer = ROWS["text"], RowTokenizer(gpt2)

    def reason(*responses: str, max_length: int = LONG) -> str:
        outcome = tokenizer.tokenize([replace(row, responses=responses)], max_length, LONG)[0]
        assert isinstance(outcome, Drop)
        return outcome.reason

    assert reason(" yes", "<|endoftext|>", " no") == "empty-response"
    assert reason(" yes", " no", " yes<|endoftext|>") == "identical-responses"
    room = len(whole_row(row, gpt2).prompt_ids) + 1
    assert reason(" yes no", " no", " yes maybe", max_length=room) == "identical-after-truncation"
    assert whole_row(replace(row, responses=(" yes",)), gpt2).response_ids == [pair(PLAIN, gpt2).response_ids[0]]
