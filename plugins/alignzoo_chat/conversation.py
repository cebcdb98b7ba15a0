"""One model's conversation: its turns, and the prompt that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from alignzoo.errors import UsageError
from alignzoo.generate.decoding import Decoding
from alignzoo.generate.prompts import Prompting


@dataclass(frozen=True)
class Turn:
    """A message and the response to it.

    Attributes:
        decoding: how the response was decoded.
        stopped: the user stopped it.
        cut: it was cut at ``decoding.max_new_tokens``.
    """

    message: str
    response: str
    decoding: Decoding
    stopped: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Fitted:
    """A prompt within a model's positions.

    Attributes:
        ids: its tokens.
        dropped: turns at the beginning of the conversation that it leaves out.
        max_new_tokens: most tokens of the response: those asked for, or as many as there are positions left.
    """

    ids: list[int]
    dropped: int
    max_new_tokens: int


@dataclass
class Conversation:
    """The turns with one model.

    Attributes:
        positions: tokens that the model can read and write; None if it does not say.
    """

    tokenizer: Any
    positions: int | None = None
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    @property
    def prompting(self) -> Prompting:
        """How prompts are written, with the system prompt of the moment."""
        return Prompting(self.tokenizer, self.system)

    def prompt(self, message: str, max_new_tokens: int) -> Fitted:
        """The prompt for the next response: as many of the latest turns as leave room for it, the system prompt and the
        message.

        Raises:
            UsageError: the message alone leaves no room.
            DataError, ModelError: the chat template rejects the messages, or fails.
        """
        prompting, positions = self.prompting, self.positions
        if positions is None:
            return Fitted(prompting.ids(messages_of(self.turns, message)), 0, max_new_tokens)
        room = positions - min(max_new_tokens, positions // 2)
        for dropped in range(len(self.turns) + 1):
            ids = prompting.ids(messages_of(self.turns[dropped:], message))
            if len(ids) <= room or (dropped == len(self.turns) and len(ids) < positions):
                return Fitted(ids, dropped, min(max_new_tokens, positions - len(ids)))
        raise UsageError(
            f"with its prompt the message has {len(ids)} tokens, which leaves no room for a response: the model has "
            f"{positions} positions",
            hint="shorten it",
        )

    def record(self) -> list[dict[str, Any]]:
        """The messages for a transcript; of each response, its decoding and whether it was stopped or cut."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        found: list[dict[str, Any]] = [*system]
        for turn in self.turns:
            how = {"decoding": asdict(turn.decoding), "stopped": turn.stopped, "cut": turn.cut}
            found.append({"role": "user", "content": turn.message})
            found.append({"role": "assistant", "content": turn.response, **how})
        return found


def messages_of(turns: Sequence[Turn], message: str) -> list[dict[str, str]]:
    """Turns as messages, with a new message at the end."""
    found = []
    for turn in turns:
        found.append({"role": "user", "content": turn.message})
        found.append({"role": "assistant", "content": turn.response})
    return [*found, {"role": "user", "content": message}]
