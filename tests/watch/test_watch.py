"""``alignzoo watch``: what it says of a run and a sweep, from their folders, at every moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alignzoo_watch.chart import binned, chart
from alignzoo_watch.state import RunState, RunWatch, SweepWatch
from alignzoo_watch.tail import Tail
from alignzoo_watch.view import curves_of, draw
from in_process import call_main
from rich.console import Console
from watch_helpers import Run, write_failure, write_sweep


def shown(state: object, width: int = 100, height: int = 40, plain: bool = False) -> str:
    console = Console(width=width, height=height, file=None, force_terminal=False, color_system=None)
    with console.capture() as frame:
        console.print(draw(state, width, height, plain=plain))  # type: ignore[arg-type]
    return frame.get().rstrip("\n")


def test_a_run_from_before_it_starts_until_after_it_has_ended(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    watch = RunWatch(run.folder)
    assert watch.state().status == "waiting"
    run.begin(loss="simpo")
    state = watch.state()
    assert (state.status, state.step, state.steps) == ("running", 0, 10)
    assert "--loss simpo" in state.sentence
    for number in (1, 2, 3, 4):
        run.step(number)
    state = watch.state()
    assert (state.step, state.seconds_per_step, state.tokens_per_second) == (4, 0.5, 2000)
    assert state.seconds_left == pytest.approx(6 * 0.5)
    assert state.curves["loss"] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert "running, step 4 of 10, 2,000 tokens/s, 0.5 s/step, 0:03 left" in shown(state)
    run.end()
    state = watch.state()
    assert (state.status, state.seconds_left) == ("stopped", None)
    assert f"alignzoo run --resume {run.folder}" in shown(state, width=300)
    run.finish()
    state = watch.state()
    assert state.over
    assert "eval/rewards/accuracies 0.875" in shown(state)


def test_the_tail_reads_what_is_new_waits_for_whole_lines_and_starts_over_on_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    tail.read()
    assert (tail.steps, tail.changed) == ({}, None)
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "lo')
    tail.read()
    assert tail.steps == {1: {"step": 1, "loss": 3}}
    with path.open("a") as lines:
        lines.write('ss": 2}\nnonsense\n{"step": 3, "loss": NaN}\n')
    tail.read()
    assert tail.steps == {1: {"step": 1, "loss": 3}, 2: {"step": 2, "loss": 2}, 3: {"step": 3}}
    other = tmp_path / "other"  # a resumed run replaces the file by the lines of its checkpoint
    other.write_text('{"step": 1, "loss": 3}\n')
    other.replace(path)
    tail.read()
    assert list(tail.steps) == [1]


@pytest.mark.parametrize(("width", "height"), [(30, 8), (60, 12), (100, 24), (200, 60)])
@pytest.mark.parametrize("plain", [False, True])
def test_a_frame_fits_the_terminal(tmp_path: Path, width: int, height: int, plain: bool) -> None:
    run = Run(tmp_path / "run", steps=40)
    run.begin()
    for number in range(1, 31):
        run.step(number, **{f"figure/{i}": number * i for i in range(20)})
    write_sweep(tmp_path / "sweep", seeds=3, losses=("dpo", "simpo", "ipo", "kto", "sft"))
    write_failure(tmp_path / "sweep", "dpo-1", "the loss is nan\nand more")
    for state in (RunWatch(run.folder).state(), SweepWatch(tmp_path / "sweep").state()):
        lines = shown(state, width, height, plain).split("\n")
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        assert not plain or all(line.isascii() or "…" in line for line in lines)
    run.end()


def test_the_cells_of_a_sweep_with_their_state(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    names = write_sweep(sweep, seeds=3)
    runs = {name: Run(sweep / "runs" / name) for name in names}
    watch = SweepWatch(sweep)
    assert watch.state().counts == {"waiting": 6}
    runs["dpo-0"].begin()
    runs["dpo-0"].finish(seconds=8)
    runs["dpo-1"].begin()
    for number in range(1, 6):
        runs["dpo-1"].step(number)
    runs["dpo-2"].begin()
    runs["dpo-2"].step(1)
    runs["dpo-2"].end()
    write_failure(sweep, "simpo-0", "step 3: the loss is nan\nmore")
    state = watch.state()
    assert [cell.status for cell in state.cells] == ["finished", "running", "stopped", "failed", "waiting", "waiting"]
    assert state.tokens_per_second == 2000
    assert state.seconds_left == pytest.approx(8 * (4 - 0.5)), "four cells to come, one of them half done, one worker"
    text = shown(state)
    assert "✓▶‖ loss=dpo" in text
    assert "✗·· loss=simpo" in text
    assert "▶ loss=dpo seed 1: step 5 of 10, loss 0.2000, 0:02 left" in text
    assert "✗ loss=simpo seed 0: step 3: the loss is nan\n" in text
    runs["dpo-1"].end()
    assert not state.over
    for name in names:
        if name != "simpo-0":
            runs[name].folder.mkdir(parents=True, exist_ok=True)
            runs[name].finish()
    assert watch.state().over, "a failed cell is not waited for"


def test_once_prints_a_frame_and_json_the_same_as_data(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    run.begin()
    run.step(1)
    run.end()
    once = call_main(["watch", str(run.folder), "--once", "--curves", "rewards/*"], capfd)
    assert once.returncode == 0
    assert "stopped, step 1 of 10" in once.stdout
    assert "rewards/margins" in once.stdout
    assert "loss  1" not in once.stdout
    piped = call_main(["watch", str(run.folder)], capfd)
    assert (piped.returncode, "stopped, step 1 of 10" in piped.stdout) == (0, True)
    facts = json.loads(call_main(["watch", str(run.folder), "--json"], capfd).stdout)
    assert (facts["status"], facts["step"], facts["steps"], facts["latest"]["loss"]) == ("stopped", 1, 10, 1.0)
    assert facts["curves"]["loss"] == [[1, 1.0]]


def test_a_folder_that_is_neither_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    absent = call_main(["watch", str(tmp_path / "absent"), "--json"], capfd)
    assert (absent.returncode, "there is no folder" in absent.stdout) == (2, True)
    (tmp_path / "file").touch()
    other = call_main(["watch", str(tmp_path), "--once"], capfd)
    assert (other.returncode, "no folder of a run or a sweep" in other.stderr) == (2, True)


def test_control_characters_of_a_run_do_not_reach_the_terminal(tmp_path: Path) -> None:
    state = RunState("run\x1b[2J", "running", "", 1, 2, None, None, None, None, {"loss\x1b[31m": [(1, 1.0)]}, {})
    assert "\x1b" not in shown(state)


def test_a_chart_has_the_largest_value_on_top_and_the_first_on_the_left() -> None:
    assert chart([0, 1, 2, 3], 4, 4, plain=True) == ["   *", "  * ", " *  ", "*   "]
    assert chart([3, 0], 2, 4, plain=True) == ["* ", " *", " *", " *"], "a jump is a stroke"
    assert chart([], 3, 2) == ["   ", "   "]
    assert all(len(line) == 7 for line in chart([5.0] * 100, 7, 3))


def test_many_values_are_shown_by_their_means() -> None:
    assert binned([1, 3, 5, 7], 2) == [2, 6]
    assert binned([1, 2], 5) == [1, 2]
    assert sum(binned(list(range(1000)), 10)) == pytest.approx(10 * 499.5)


def test_a_long_run_is_thinned_and_keeps_its_evaluations(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", steps=9000)
    run.begin()
    lines = [{"step": i, "loss": 1.0, **({"eval/loss": i} if i == 777 else {})} for i in range(1, 9001)]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = RunWatch(run.folder).state()
    assert len(state.curves["loss"]) <= 2001
    assert state.curves["loss"][-1] == (9000, 1.0)
    assert state.curves["eval/loss"] == [(777, 777.0)]
    run.end()


def test_the_usual_curves_come_first() -> None:
    names = ["lr", "weights/x", "grad_norm", "loss", "geometry/survival"]
    assert curves_of(names) == ["loss", "geometry/survival", "grad_norm", "weights/x"]
    assert curves_of(names, ["weights/*", "lo*"]) == ["weights/x", "loss"]
