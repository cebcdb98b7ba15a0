"""``alignzoo watch``: a run or a sweep, live."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, write
from alignzoo.errors import UsageError
from alignzoo_watch.state import RunState, RunWatch, SweepState, SweepWatch, watch_of

FRAME_LINES = 40
"""Lines of a frame that is not on a terminal."""


@cli_command("watch")
@click.argument("folder", metavar="RUN|SWEEP", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="print the current state and end")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS", help="between frames"
)
@click.option("--curves", metavar="NAMES", help="figures to draw, comma-separated, * for any characters: `eval/*`")
@json_option
def command(folder: Path, once: bool, every: float, curves: str | None, as_json: bool) -> None:
    """Watch a run or a sweep: curves, throughput, time left.

    Reads the folder only, so it can be started before, during and after the run, also on another machine that sees the
    folder. The view ends when the run has finished, or when you press Ctrl-C; the run continues. Where there is no
    terminal, prints the current state and ends.
    """
    names = [name.strip() for name in (curves or "").split(",") if name.strip()]
    if as_json or once or not sys.stdout.isatty():
        if not folder.is_dir():
            raise UsageError(
                f"there is no folder {folder}",
                hint="without --once and --json, `watch` on a terminal waits for it to appear",
            )
        state = watch_of(folder).state()
        if isinstance(state, RunState) and state.status == "waiting" and any(folder.iterdir()):
            raise UsageError(f"{folder} is no folder of a run or a sweep", hint="name the folder of --out")
        if as_json:
            print_json(state.to_dict())
        else:
            _print(state, names)
        return
    _live(folder, every, names)


def _print(state: RunState | SweepState, names: Sequence[str]) -> None:
    """One frame on stdout."""
    from rich.console import Console

    from alignzoo_watch.view import draw

    console = Console(file=sys.stdout)
    size = shutil.get_terminal_size((100, FRAME_LINES))
    plain = console.options.ascii_only
    with console.capture() as frame:
        console.print(draw(state, size.columns, FRAME_LINES, patterns=names, plain=plain), width=size.columns)
    for line in frame.get().rstrip("\n").split("\n"):
        if console.is_terminal:
            sys.stdout.write(f"{line}\n")
        else:
            write(sys.stdout, line.rstrip())


def _live(folder: Path, every: float, names: Sequence[str]) -> None:
    """Frames on the terminal's other screen until the run is over; the last one stays on the usual screen."""
    from rich.console import Console
    from rich.live import Live

    from alignzoo_watch.view import draw

    console, watch = Console(), watch_of(folder)
    state, interrupted = watch.state(), False
    plain = console.options.ascii_only
    if not state.over:
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            try:
                while not state.over:
                    width, height = console.size
                    live.update(draw(state, width, height - 1, patterns=names, plain=plain), refresh=True)
                    time.sleep(every)
                    watch = _of_now(watch, folder)
                    state = watch.state()
            except KeyboardInterrupt:
                interrupted = True
    _print(state, names)
    if interrupted:
        write(sys.stderr, "stopped watching; the run is not affected")


def _of_now(watch: RunWatch | SweepWatch, folder: Path) -> RunWatch | SweepWatch:
    """The watch of a folder that may have become a sweep's meanwhile."""
    now = watch_of(folder)
    return watch if type(now) is type(watch) else now
