"""``alignzoo report``: a run or sweep as one HTML file to send."""

from __future__ import annotations

from pathlib import Path

import click

from alignzoo.base.files import local_path, write_text
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines
from alignzoo.errors import UsageError

REPORT_FILE = "report.html"


@cli_command("report")
@click.argument("where", metavar="RUN|SWEEP")
@click.option("--out", metavar="FILE", help=f"file to write [default: {REPORT_FILE} in the folder]")
@json_option
def command(where: str, out: str | None, as_json: bool) -> None:
    """Write a run or sweep as one self-contained HTML file.

    The page needs no network and no other file, so it can be sent or archived. It works for runs that are still going
    or were stopped, too.
    """
    folder = local_path(where)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", hint="name the folder that `run` or `sweep` printed")
    target = local_path(out) if out else folder / REPORT_FILE
    if target.is_dir() or not target.parent.is_dir():
        problem = "is a folder" if target.is_dir() else "lies in a folder that does not exist"
        raise UsageError(f"--out {target} {problem}", hint="name a file, such as report.html")
    text = page_of(folder)
    write_text(target, text)
    size = len(text.encode())
    if as_json:
        print_json({"out": str(target), "bytes": size})
    else:
        print_lines(f"{target} ({size / 1e6:.1f} MB)")


def page_of(folder: Path) -> str:
    """The page of a run or sweep folder.

    Raises:
        UsageError: it is neither.
        DamagedError: a file in it is not what was written.
    """
    from alignzoo.plan.started import PLAN_FILE
    from alignzoo.records import is_sweep, read_run, read_sweep
    from alignzoo_report.page import html
    from alignzoo_report.run_page import run_page

    if is_sweep(folder):
        from alignzoo_report.sweep_page import sweep_page

        return html(sweep_page(read_sweep(folder)))
    if not (folder / PLAN_FILE).is_file():
        raise UsageError(
            f"{folder} is neither a run nor a sweep folder", hint="name the folder that `run` or `sweep` printed"
        )
    return html(run_page(read_run(folder)))
