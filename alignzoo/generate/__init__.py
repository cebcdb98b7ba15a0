"""Generation: prompts from messages, batched responses, streamed text."""

from alignzoo.generate.batched import generate
from alignzoo.generate.decoding import Decoding, Response
from alignzoo.generate.prompts import Prompting
from alignzoo.generate.stream import stream

__all__ = ["Decoding", "Prompting", "Response", "generate", "stream"]
