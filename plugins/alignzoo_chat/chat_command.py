"""``alignzoo chat``: talk to a model, or to a run before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.flags import given_options, setting_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import UsageError
from alignzoo_chat.decoding_options import MOST, decoding_options

if TYPE_CHECKING:
    from alignzoo_chat.chat import Chat

SETTINGS = ("precision", "quantize", "trust_remote_code")


@cli_command("chat")
@click.argument("name", metavar="RUN|MODEL")
@click.option(
    "--against", metavar="base|MODEL", help="model to compare with, answering first; base: the one the run started from"
)
@decoding_options
@click.option("--save", metavar="FILE", help="keep the transcript in a new file, .json or .md, from the first response")
@click.option("--no-stream", is_flag=True, help="show responses once they are complete")
@setting_options(*SETTINGS)
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    against: str | None,
    system: str | None,
    temperature: float,
    top_p: float,
    max_new_tokens: int | None,
    seed: int,
    save: str | None,
    no_stream: bool,
    **_words: Any,
) -> None:
    """Talk to a model, or to the model that a run has trained; /help lists what can be typed besides messages.

    With --against, two models answer the same messages, side by side if the terminal is wide enough; each sees its own
    responses. Messages can come from a pipe, one per line.

    alignzoo chat runs/dpo --against base
    """
    from alignzoo.distributed.process import alone
    from alignzoo.generate.decoding import Decoding
    from alignzoo.session.subject import against as compared
    from alignzoo.session.subject import subject_of
    from alignzoo_chat.chat import Chat
    from alignzoo_chat.screen import Screen
    from alignzoo_chat.speakers import load_speakers
    from alignzoo_chat.transcript import transcript_path

    saved = transcript_path(save) if save is not None else None
    if saved is not None and saved.exists():
        raise UsageError(f"--save {save}: the file exists", hint="name another one")
    decoding = Decoding(max_new_tokens or MOST, temperature, top_p, seed=seed)
    subject = subject_of(name)
    other = compared(subject, against) if against is not None else None
    values = {option.key: value for option, value in given_options(ctx)}
    speakers = load_speakers(subject, other, alone("alignzoo chat"), ConsoleReporter(), values)
    chat = Chat(speakers, Screen(streamed=not no_stream), decoding, system, saved)
    _introduce(chat)
    chat.talk()


def _introduce(chat: Chat) -> None:
    from alignzoo_chat.commands import decoding_words

    speakers = [member.speaker for member in chat.members]
    for speaker in speakers:
        shared = f", the weights of {speakers[-1].label} without its adapter" if speaker.adapter_off else ""
        chat.screen.note(f"{speaker.label}: {speaker.device}{shared}")
    prompting = {member.speaker.label: member.conversation.prompting.described for member in chat.members}
    for label, described in prompting.items() if len(set(prompting.values())) > 1 else ():
        chat.screen.note(f"prompts of {label}: {described}")
    if len(set(prompting.values())) == 1:
        chat.screen.note(f"prompts: {next(iter(prompting.values()))}")
    chat.screen.note(f"{decoding_words(chat)}; {'a' if chat.system else 'no'} system prompt")
    chat.screen.note("/help lists the commands, Ctrl-C stops a response, Ctrl-D leaves")
    if chat.screen.terminal:
        chat.screen.blank()
