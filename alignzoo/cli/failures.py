"""Errors on the command line: one line that says what is wrong, one that says what to do."""

from __future__ import annotations

import contextlib
import errno
import sys
import traceback
from typing import Any

import click

from alignzoo.base.shown import clipped
from alignzoo.base.stop import was_interrupted
from alignzoo.cli.console import print_json, write
from alignzoo.cli.launch import WorkerError
from alignzoo.distributed.launch import is_first_rank, is_worker
from alignzoo.distributed.workers import tell_parent
from alignzoo.errors import AlignzooError, Interrupted
from alignzoo.plugin.blame import blame
from alignzoo.plugin.faults import describe_error


def problem_dict(error: AlignzooError) -> dict[str, Any]:
    """An error as JSON-able data."""
    return {
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
        "kind": type(error).__name__,
    }


def report_failure(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Print an error to stderr (and, with ``as_json``, to stdout as well).

    Returns:
        The exit code it stands for.
    """
    facts = _facts(error)
    facts["message"] = clipped(facts["message"])
    trace = facts.pop("traceback", None) or "".join(traceback.format_exception(error)).rstrip()
    if is_worker():
        tell_parent({**facts, "traceback": trace})  # which reports it, once for all
        return int(facts["exit_code"])
    if not is_first_rank() and isinstance(error, AlignzooError):
        return int(facts["exit_code"])  # a user's mistake is the same on all ranks; the first one reports it
    if debug:
        write(sys.stderr, trace)
    elif facts["kind"] == "InternalError":
        facts["hint"] = "run again with --debug for the traceback"
    write(sys.stderr, f"error: {facts['message']}" if facts["kind"] != "InternalError" else facts["message"])
    if facts["hint"]:
        write(sys.stderr, "\n".join(f"  {line}" for line in facts["hint"].splitlines()))
    if as_json:
        print_json({"error": facts})
    return int(facts["exit_code"])


def _facts(error: BaseException) -> dict[str, Any]:
    if isinstance(error, WorkerError):
        return dict(error.facts)
    if isinstance(error, AlignzooError):
        return problem_dict(error)
    if isinstance(error, click.Abort) and isinstance(error.__cause__, EOFError):  # click takes every one for Ctrl-D
        error = error.__cause__
    if isinstance(error, (click.Abort, KeyboardInterrupt)) or (_unexpected(error) and was_interrupted()):
        first = _first_request(error)
        if first is not None:
            return _facts(first)
        return {"message": "interrupted", "hint": None, "exit_code": 130, "kind": "Interrupted"}
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f"`{context.command_path} --help` shows its usage" if context else None
        return {"message": _sentence(error), "hint": hint, "exit_code": error.exit_code, "kind": "UsageError"}
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        message = f"{error.filename} is too long for a file or folder name"
        return {"message": message, "hint": "check the path", "exit_code": 2, "kind": "UsageError"}
    culprit = None
    with contextlib.suppress(Exception):  # this looks up plugins, which may be what failed
        culprit = blame(error)
    if culprit is not None:
        message = f"{culprit}: {describe_error(error)}"
        hint = "fix the plugin or leave it out; --debug shows the traceback"
        return {"message": message, "hint": hint, "exit_code": 4, "kind": "BrokenPluginError"}
    message = f"internal error: {type(error).__name__}: {error}"
    return {"message": message, "hint": None, "exit_code": 1, "kind": "InternalError"}


def _first_request(error: BaseException | None) -> BaseException | None:
    """What a first request to stop came to, if ``error`` is a further one, on the way out."""
    while error is not None and not isinstance(error, (Interrupted, WorkerError)):
        error = error.__cause__ or error.__context__
    return error


def _unexpected(error: BaseException) -> bool:
    return not isinstance(error, (AlignzooError, click.ClickException, OSError))


def _sentence(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:]
