"""The commands of a conversation, such as ``/temperature 0.7``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alignzoo.base.suggest import nearest
from alignzoo.cli.console import plain_table
from alignzoo.errors import UsageError
from alignzoo_chat.transcript import save_transcript, transcript_path

if TYPE_CHECKING:
    from alignzoo_chat.chat import Chat

NOTHING = "none"
"""``/system none`` removes the system prompt."""


@dataclass(frozen=True)
class Command:
    """A command: its argument as help shows it, what it does, and the function that does it."""

    argument: str
    summary: str
    run: Callable[[Chat, str], None]


def run_command(chat: Chat, line: str) -> None:
    """Run ``/NAME ARGUMENT``.

    Raises:
        UsageError: there is no such command, or its argument does not suit it.
    """
    name, _, argument = line[1:].partition(" ")
    name = ALIASES.get(name.strip(), name.strip())
    if name not in COMMANDS:
        near = [f"/{one}" for one in nearest(name, COMMANDS)] if name else []
        hint = f"did you mean {' or '.join(near)}?" if near else "/help lists them; // begins a message with a slash"
        raise UsageError(f"unknown command /{name}", hint=hint)
    command, argument = COMMANDS[name], argument.strip()
    if argument and not command.argument:
        raise UsageError(f"/{name} takes no value, but was given {argument!r}")
    command.run(chat, argument)


def _help(chat: Chat, _argument: str) -> None:
    rows = [[f"/{name} {command.argument}".strip(), command.summary] for name, command in COMMANDS.items()]
    chat.screen.show("\n".join([*plain_table(["", ""], rows), "", *_TYPING]))


_TYPING = (
    'Several lines: end a line with \\, or begin with """ and end with """.',
    "Ctrl-C stops a response and keeps what there is; at the prompt, Ctrl-C or Ctrl-D leaves.",
    "A message that begins with / is written with //.",
)


def _system(chat: Chat, argument: str) -> None:
    if argument:
        chat.system = None if argument == NOTHING else argument
        described = chat.members[-1].conversation.prompting.described
        chat.screen.note(f"system prompt set; prompts: {described}" if chat.system else "no system prompt")
    else:
        chat.screen.show(chat.system or "no system prompt")


def _temperature(chat: Chat, argument: str) -> None:
    if argument:
        chat.decoding = replace(chat.decoding, temperature=_number("temperature", argument))
    chat.screen.note(decoding_words(chat))


def _top_p(chat: Chat, argument: str) -> None:
    if argument:
        chat.decoding = replace(chat.decoding, top_p=_number("top-p", argument))
    chat.screen.note(decoding_words(chat))


def _max(chat: Chat, argument: str) -> None:
    if argument:
        chat.decoding = replace(chat.decoding, max_new_tokens=_whole("max", argument))
    chat.screen.note(decoding_words(chat))


def _seed(chat: Chat, argument: str) -> None:
    if argument:
        chat.reseed(_whole("seed", argument))
    chat.screen.note(decoding_words(chat))


def _reset(chat: Chat, _argument: str) -> None:
    chat.reset()
    chat.screen.note("the conversation is empty")


def _undo(chat: Chat, _argument: str) -> None:
    removed = chat.undo()
    if removed is None:
        raise UsageError("there is no turn to undo")
    chat.screen.note(f"removed: {removed if len(removed) <= 60 else removed[:59] + '…'}")


def _retry(chat: Chat, _argument: str) -> None:
    if not chat.retry():
        raise UsageError("there is no response to generate again")
    if chat.decoding.greedy:
        chat.screen.note("greedy decoding gives the same response again; /temperature 0.7 samples")


def _save(chat: Chat, argument: str) -> None:
    if not argument:
        raise UsageError("/save needs a file", hint="for example /save chat.md")
    path = transcript_path(argument)
    if path.is_file():
        reply = chat.typed.answer(f"{path} exists: overwrite it? [y/N]")
        if reply is None:
            raise UsageError(f"{path} exists", hint="name another file")
        if reply.lower() not in ("y", "yes"):
            chat.screen.note("not saved")
            return
    save_transcript(path, chat.parts)
    chat.screen.note(f"saved to {path}")


def _history(chat: Chat, _argument: str) -> None:
    for part in chat.parts:
        if len(chat.members) > 1:
            chat.screen.heading([part.label])
        messages = part.conversation.record()
        for message in messages:
            chat.screen.show(f"{message['role']}: {message['content']}")
        if not messages:
            chat.screen.note("nothing was said yet")


def _quit(chat: Chat, _argument: str) -> None:
    chat.over = True


COMMANDS = {
    "help": Command("", "this list", _help),
    "system": Command("TEXT", f"set the system prompt ({NOTHING} removes it), or show it", _system),
    "temperature": Command("X", "0: greedy; above 0: sample", _temperature),
    "top-p": Command("X", "sample from the most probable tokens that share X of the probability", _top_p),
    "max": Command("N", "most new tokens of a response", _max),
    "seed": Command("N", "seed of the next sampled response", _seed),
    "history": Command("", "show the conversation", _history),
    "undo": Command("", "remove the last message and its response", _undo),
    "retry": Command("", "generate the last response again", _retry),
    "reset": Command("", "remove all messages", _reset),
    "save": Command("FILE", "save the conversation as .json or .md", _save),
    "quit": Command("", "leave", _quit),
}
ALIASES = {"clear": "reset", "exit": "quit", "top_p": "top-p", "?": "help"}


def decoding_words(chat: Chat) -> str:
    """How the next response is decoded, in words."""
    decoding = chat.decoding
    how = "greedy decoding"
    if not decoding.greedy:
        how = f"sampling at temperature {decoding.temperature:g}, top-p {decoding.top_p:g}, seed {decoding.seed}"
    return f"{how}, at most {decoding.max_new_tokens} new tokens"


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"/{name} {text}: not a number") from error


def _whole(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise UsageError(f"/{name} {text}: not a whole number") from error
    if value < 0:
        raise UsageError(f"/{name} {text}: below 0")
    return value
