"""The inputs of a reward: the run's context, once, and the responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignzoo.contract.texts import Message, Text, as_messages
from alignzoo.report import Reporter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Response:
    """One response to a prompt.

    Attributes:
        row_id: row number in the data.
        prompt, reply: as the data has them, whole: both text, or both chat messages.
        ids: token ids of prompt and reply as the policy is trained on them: in its template, truncated at
            ``--max-length``.
        transcript: the messages were parsed from a ``Human:``/``Assistant:`` transcript.
        score: the data's own score; None unless the reward's card needs ``scores``.
    """

    row_id: int
    prompt: Text
    reply: Text
    ids: Sequence[int]
    transcript: bool = False
    score: float | None = None

    @property
    def pair_id(self) -> int:
        """``row_id``, under the name it had while every row was a pair."""
        return self.row_id

    @property
    def messages(self) -> list[Message]:
        """The conversation, the reply last; text becomes a user's message and an assistant's."""
        return as_messages(self.prompt, "user") + as_messages(self.reply, "assistant")


@dataclass(frozen=True)
class RewardContext:
    """What a reward can read once, before it scores.

    Attributes:
        model: the policy with the initial weights, unwrapped.
        weights: the content hash of these weights.
        device: the policy's device, also for the reward's own model.
        seed: that of the run, for whatever is drawn.
        report: where to say what takes long or is worth knowing.
        probe: the safety probe of that model: trained now, reused, or read from the given folder (a
            :class:`alignzoo.geometry.probe.Probe`).
        trust_remote_code: whether the user lets models run code from their repositories.
        data_scores: whether the data has scores of its own.
    """

    model: Any
    weights: str
    device: torch.device
    seed: int
    report: Reporter
    probe: Callable[[str | None], Any]
    trust_remote_code: bool = False
    data_scores: bool = False
