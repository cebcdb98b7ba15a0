"""World 2's tokenizer: one token a word, with the space before it, so that prompts and answers are short."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from alignzoo_sandbox.tokenizer import BOS, CHAT_TEMPLATE, EOS, PAD, ROLES

from alignzoo_world2.corpus import texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_LENGTH = 64
UNKNOWN = "<|unknown|>"
_WORD = r" ?[^\s.,?]+|[.,?]|\s"


def build_tokenizer(world: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a world: the words of its pretraining chats. Any other word is unknown."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts(world) for word in re.findall(_WORD, text)})
    tokens = [PAD, BOS, EOS, *ROLES, UNKNOWN, *words]
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=list(ROLES),
        model_max_length=MAX_LENGTH,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
