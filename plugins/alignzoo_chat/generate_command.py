"""``alignzoo generate``: responses to a file of prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from alignzoo.base.files import local_path
from alignzoo.base.shown import printable_json
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, write
from alignzoo.cli.flags import given_options, setting_options
from alignzoo.cli.reporter import ConsoleReporter
from alignzoo.errors import UsageError
from alignzoo_chat.chat_command import SETTINGS
from alignzoo_chat.decoding_options import MOST, decoding_options

AUTO = "auto"


@cli_command("generate")
@click.argument("name", metavar="RUN|MODEL")
@click.option(
    "--prompts",
    "source",
    required=True,
    metavar="FILE|DATA|-",
    help=".txt (one prompt per line), .jsonl, .json, .csv or .parquet with a column prompt or messages, what "
    "`alignzoo run --data` reads, or - for lines of stdin",
)
@click.option(
    "--column", metavar="NAME", help="column of the prompts [default: messages, prompt, or the data's layout]"
)
@click.option("--split", metavar="NAME", help="split of a hub dataset")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="only the first N prompts")
@click.option("--out", metavar="FILE.jsonl", help="append responses to this file; a later call resumes it")
@click.option("--overwrite", is_flag=True, help="replace --out if it exists")
@click.option(
    "-n", "--n", "samples", type=click.IntRange(min=1), default=1, metavar="K", help="responses per prompt [default: 1]"
)
@decoding_options
@click.option("--batch-size", default=AUTO, metavar="auto|N", help="prompts at a time [default: auto]")
@setting_options(*SETTINGS)
@json_option
@click.pass_context
def command(ctx: click.Context, name: str, out: str | None, as_json: bool, **words: Any) -> None:
    """Generate responses to a file of prompts, with a model or with the model that a run has trained.

    Without --out, responses are printed in the order of the prompts (with --json, as JSON lines). With --out, each is
    appended as soon as it is finished, and a killed command resumes; the file is in the order of the prompts in the
    end.

    alignzoo generate runs/dpo --prompts prompts.txt --out responses.jsonl
    """
    _check(words, out)
    from alignzoo.distributed.process import alone
    from alignzoo.generate.decoding import Decoding
    from alignzoo.model.positions import stated_positions
    from alignzoo.session.subject import model_session, subject_of
    from alignzoo_chat.generate_run import Request, show_responses, write_responses
    from alignzoo_chat.prompt_file import STDIN, read_prompts
    from alignzoo_chat.responses_file import check_out

    source = words["source"]
    if out is not None:
        check_out(local_path(out), None if source == STDIN else local_path(source), overwrite=words["overwrite"])
    subject = subject_of(name)
    prompts = read_prompts(source, column=words["column"], split=words["split"], limit=words["limit"])
    values = {option.key: value for option, value in given_options(ctx)}
    report = ConsoleReporter()
    session = model_session(subject.model, alone("alignzoo generate"), report, values)
    most = words["max_new_tokens"] or min(MOST, (stated_positions(session.config) or 2 * MOST) // 2)
    decoding = Decoding(most, words["temperature"], words["top_p"], seed=words["seed"])
    request = Request(name, prompts, decoding, words["system"], words["samples"], _batch_size(words["batch_size"]))
    if out is None:
        summary = show_responses(request, session, _print_json_line if as_json else _print_readable, report)
        write(sys.stderr, _sentence(summary))
        return
    summary = write_responses(request, session, local_path(out), report, overwrite=words["overwrite"])
    if as_json:
        print_json(summary)
    else:
        print_lines(_sentence(summary), str(Path(out)))


def _check(words: dict[str, Any], out: str | None) -> None:
    """Reject words that contradict each other, before anything is read."""
    if words["overwrite"] and out is None:
        raise UsageError("--overwrite has no effect without --out", hint="leave it out")
    if words["samples"] > 1 and words["temperature"] == 0:
        raise UsageError(
            f"--n {words['samples']} would give the same greedy response {words['samples']} times",
            hint="sample with --temperature 0.7, or leave --n out",
        )
    _batch_size(words["batch_size"])


def _batch_size(text: str) -> int | None:
    if text == AUTO:
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"--batch-size {text}: not a number above 0", hint="for example --batch-size 8, or auto")


def _print_json_line(line: dict[str, Any]) -> None:
    write(sys.stdout, printable_json(json.dumps(line, ensure_ascii=False)))


def _print_readable(line: dict[str, Any]) -> None:
    asked = line["prompt"] if "prompt" in line else line["messages"][-1]["content"]
    cut = "" if line["ended"] else " […]"
    print_lines(f"[{line['id']}] {asked}", f"{line['response']}{cut}", "")


def _sentence(summary: dict[str, Any]) -> str:
    speed = summary["tokens_per_second"]
    words = [
        f"{summary['responses']} responses to {summary['prompts']} prompts, {summary['tokens']} tokens",
        *([f"{speed:.1f} tokens/s"] if speed else []),
        *([f"{summary['cut']} cut at {summary['max_new_tokens']} tokens"] if summary["cut"] else []),
    ]
    return "; ".join(words)
