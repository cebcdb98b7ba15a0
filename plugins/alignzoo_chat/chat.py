"""The conversation with one model, or with two at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignzoo.errors import AlignzooError, ModelError
from alignzoo.generate.decoding import Decoding
from alignzoo_chat.commands import COMMANDS, run_command
from alignzoo_chat.conversation import Conversation, Fitted, Turn
from alignzoo_chat.interrupts import CtrlC, Left
from alignzoo_chat.screen import Screen
from alignzoo_chat.speakers import Speaker
from alignzoo_chat.transcript import Part, save_transcript
from alignzoo_chat.typed import Typed


@dataclass
class Member:
    """A model with its conversation.

    Attributes:
        dropped: turns that its last prompt left out.
    """

    speaker: Speaker
    conversation: Conversation
    dropped: int = 0


class Chat:
    """A conversation from the first message to the last.

    Attributes:
        members: the models; each sees only its own responses.
        decoding: of the next response; its seed is that of the first response.
        over: whether the user has left.
    """

    def __init__(
        self, speakers: Sequence[Speaker], screen: Screen, decoding: Decoding, system: str | None, saved: Path | None
    ) -> None:
        self.members = [Member(one, Conversation(one.tokenizer, one.positions, system)) for one in speakers]
        self.screen = screen
        self.decoding = decoding
        self.over = False
        self.typed = Typed([f"/{name}" for name in COMMANDS], coloured=screen.colours)
        self.ctrl_c = CtrlC()
        self._saved = saved
        self._drawn = 0

    @property
    def system(self) -> str | None:
        """The system prompt, the same for all models."""
        return self.members[0].conversation.system

    @system.setter
    def system(self, text: str | None) -> None:
        for member in self.members:
            member.conversation.system = text

    def talk(self) -> None:
        """Until the user leaves.

        Raises:
            KeyboardInterrupt: a request to stop that was not Ctrl-C at a terminal.
        """
        with self.ctrl_c.handled():
            try:
                while not self.over:
                    self._next()
            except Left:
                if not self.screen.terminal:
                    raise
                self.screen.blank()

    def _next(self) -> None:
        text = self.typed.next()
        if text is None:
            self.over = True
            if self.screen.terminal:
                self.screen.blank()
            return
        try:
            if text.startswith("/") and not text.startswith("//"):
                run_command(self, text)
            elif text:
                self.respond(text.removeprefix("/") if text.startswith("//") else text)
        except AlignzooError as error:
            self.screen.error(error)

    def respond(self, message: str) -> None:
        """Generate and show the response of every model, and add the turn.

        Raises:
            AlignzooError: the message does not fit, or a model fails; the conversation is as it was.
        """
        decoding = replace(self.decoding, seed=self.decoding.seed + self._drawn)
        prompts = [member.conversation.prompt(message, decoding.max_new_tokens) for member in self.members]
        for member, prompt in zip(self.members, prompts, strict=True):
            self._tell_dropped(member, prompt)
        together = self.screen.beside(len(self.members))
        groups = [list(zip(self.members, prompts, strict=True))]
        if not together:
            groups = [[pair] for pair in groups[0]]
        turns = [turn for group in groups for turn in self._group(group, message, decoding)]
        self._drawn += 1
        for member, turn in zip(self.members, turns, strict=True):
            member.conversation.turns.append(turn)
        self.save()

    def _group(self, group: Sequence[tuple[Member, Fitted]], message: str, decoding: Decoding) -> list[Turn]:
        """The responses of models that answer side by side, or of one."""
        decodings = [replace(decoding, max_new_tokens=prompt.max_new_tokens) for _, prompt in group]
        with self.ctrl_c.stops_responses():
            if len(self.members) > 1:
                self.screen.heading([member.speaker.label for member, _ in group])
            streams = [
                member.speaker.pieces(prompt.ids, within)
                for (member, prompt), within in zip(group, decodings, strict=True)
            ]
            try:
                texts = self.screen.responses(streams, lambda: self.ctrl_c.pressed)
            except RuntimeError as error:  # out of memory; infinite logits
                self.screen.blank()
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise ModelError(f"the model failed: {reason}", hint="/reset shortens the conversation") from error
        turns = [
            Turn(message, text, within, stopped=pieces.ended is None, cut=pieces.ended is False)
            for text, within, pieces in zip(texts, decodings, streams, strict=True)
        ]
        self._tell_incomplete([member for member, _ in group], turns, decoding.max_new_tokens)
        self.screen.blank()
        return turns

    def _tell_incomplete(self, members: Sequence[Member], turns: Sequence[Turn], most: int) -> None:
        """Say which responses the user or a limit ended."""
        for member, turn in zip(members, turns, strict=True):
            whose = f"{member.speaker.label}: " if len(members) > 1 else ""
            limit = turn.decoding.max_new_tokens
            if turn.stopped:
                self.screen.note(f"({whose}stopped)")
            elif turn.cut and limit < most:
                self.screen.note(f"({whose}cut at {limit} tokens: the model's positions are full)")
            elif turn.cut:
                self.screen.note(f"({whose}cut at {limit} tokens; /max {2 * limit} allows more)")

    def _tell_dropped(self, member: Member, prompt: Fitted) -> None:
        if prompt.dropped != member.dropped and prompt.dropped:
            whose = f"{member.speaker.label}: " if len(self.members) > 1 else ""
            turns = "turn no longer fits" if prompt.dropped == 1 else f"{prompt.dropped} turns no longer fit"
            self.screen.note(f"{whose}the oldest {turns} the model's {member.speaker.positions} positions")
        member.dropped = prompt.dropped

    def undo(self) -> str | None:
        """Remove the last turn of every conversation; returns its message, None if there is none."""
        turns = [member.conversation.turns.pop() for member in self.members if member.conversation.turns]
        self.save()
        return turns[0].message if turns else None

    def retry(self) -> bool:
        """Generate the last responses again, with new samples; False if there are none.

        Raises:
            AlignzooError: as :meth:`respond`.
        """
        last = [member.conversation.turns.pop() for member in self.members if member.conversation.turns]
        if not last:
            return False
        before = len(self.members[0].conversation.turns)
        try:
            self.respond(last[0].message)
        except BaseException:
            if len(self.members[0].conversation.turns) == before:
                for member, turn in zip(self.members, last, strict=True):
                    member.conversation.turns.append(turn)
            raise
        return True

    def reset(self) -> None:
        """Begin again: no turns, the first seed; the settings stay."""
        for member in self.members:
            member.conversation.turns.clear()
            member.dropped = 0
        self._drawn = 0

    def reseed(self, seed: int) -> None:
        """The seed of the next response; those after it count on from there."""
        self.decoding = replace(self.decoding, seed=seed)
        self._drawn = 0

    @property
    def parts(self) -> list[Part]:
        """The conversations for a transcript."""
        return [Part(one.speaker.label, one.speaker.name, one.conversation) for one in self.members]

    def save(self) -> None:
        """Update the transcript of ``--save``, if it was asked for.

        Raises:
            AlignzooError: it cannot be written.
        """
        if self._saved is not None:
            save_transcript(self._saved, self.parts)
