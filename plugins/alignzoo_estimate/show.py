"""The estimate for people: a table of parameters, one of memory, then sentences."""

from __future__ import annotations

from typing import Any

from alignzoo.cli.console import print_lines, print_table
from alignzoo_estimate.cards import GIB
from alignzoo_estimate.memory import GIVES_BACK, HELD

_SHOWN = 0.005 * GIB
"""Smaller parts would be printed as zero."""


def show(facts: dict[str, Any]) -> None:
    """Print the estimate; ``facts`` are those of :func:`alignzoo_estimate.report.report`."""
    parameters, step, memory = facts["parameters"], facts["step"], facts["memory"]
    print_lines(f"{facts['model']}: {facts['sentence']}", "")
    kinds = [(name, parameters[name]) for name in ("embedding", "layers", "experts", "head", "other")]
    rows = [[name, _count(number)] for name, number in kinds if number]
    rows += [["total", _count(parameters["total"])]]
    if parameters["active"] != parameters["total"]:
        rows += [["active per token", _count(parameters["active"])]]
    print_table(["parameters", ""], [*rows, ["trained", _count(parameters["trained"])]])
    print_lines("")
    rows = [
        [name, f"{size / GIB:.2f}", f"{100 * size / memory['peak']:.0f} %"]
        for name, size in _by_size(memory)
        if size >= _SHOWN
    ]
    rows.append(["total", f"{memory['peak'] / GIB:.2f}", "100 %"])
    print_table([f"at the {memory['at']}", "GiB", "share"], rows, f"peak memory of {_devices(facts)}")
    print_lines("", *_sentences(facts, step))
    if "controllers" in facts:
        print_lines("")
        print_table(
            ["geometry", "passes", "its GiB", "peak GiB", "time"], [_controller(r) for r in facts["controllers"]]
        )
    print_lines("", *_verdict(facts))


def _by_size(memory: dict[str, Any]) -> list[tuple[str, float]]:
    return sorted(memory["parts"].items(), key=lambda part: -part[1])


def _devices(facts: dict[str, Any]) -> str:
    devices = facts["devices"]
    if devices["kind"] == "cpu":
        return "this CPU"
    if devices["count"] == 1:
        return "the GPU"
    nodes = f" on {devices['nodes']} nodes" if devices["nodes"] > 1 else ""
    return f"each of {devices['count']} GPUs{nodes} ({devices['sharding']})"


def _controller(row: dict[str, Any]) -> list[str]:
    if row["refused"] is not None:
        return [row["name"], "-", "-", "-", "refused"]
    ratio = row["ratio"] or row["work"]
    return [
        row["name"],
        f"{row['passes']:g}",
        f"{row['geometry'] / GIB:.2f}",
        f"{row['peak'] / GIB:.1f}",
        "-" if ratio is None else f"{ratio:.2f}x",
    ]


def _sentences(facts: dict[str, Any], step: dict[str, Any]) -> list[str]:
    data, work = facts["data"], facts["work"]
    lengths = f"{data['prompt']} + {' | '.join(map(str, data['responses']))}"
    way = "packed" if step["packed"] else "padded"
    lines = [
        f"rows: {lengths} tokens ({data['source']}), the longest sequence {data['longest']}; {way}",
        f"a step: {_rows(step)}; {_passes(step['passes'], step['forwards'])}",
        f"work: {_amount(work['total'], 'FLOP')} per step and device",
    ]
    if held := facts["memory"]["parts"].get(HELD):
        lines.append(
            f"glibc holds about {held / GIB:.2f} GiB of freed blocks (fitted to a few small models); "
            f"{GIVES_BACK}=1048576 gives them back"
        )
    if facts["host"] is not None:
        host = facts["host"]
        loading, training = host["loading"] / GIB, host["training"] / GIB
        lines.append(f"host memory of each node: {loading:.0f} GiB while loading, then {training:.0f} GiB")
    return [*lines, *_times(facts)]


def _times(facts: dict[str, Any]) -> list[str]:
    time, traffic = facts["time"], facts["traffic"]
    moved = f"traffic: {_amount(traffic['exchanged'], 'B')} per step and device between GPUs"
    if traffic["host"]:
        moved += f", {_amount(traffic['host'], 'B')} to host memory and back"
    lines = [moved] if traffic["exchanged"] or traffic["host"] else []
    if time["step"] is None:
        how = "--measure" if facts["devices"]["kind"] == "cpu" else "--gpu or --gpu-flops"
        return [*lines, f"time: unknown without {how}"]
    assumed = f"at {100 * time['utilisation']:.0f} % (assumed) of {time['rate'] / 1e12:.3g} TFLOP/s"
    whole = f", {duration(time['run'])} for {time['steps']} steps" if time["run"] is not None else ""
    if not lines:
        return [f"time: {duration(time['step'])} per step{whole}, {assumed}"]
    if time["traffic"] is None:
        return [*lines, f"time: {duration(time['work'])} per step{whole}, {assumed}, without the traffic (no --gpu)"]
    return [
        *lines,
        f"time: {duration(time['overlapped'])} to {duration(time['step'])} per step{whole}",
        f"  work {duration(time['work'])}, {assumed}",
        f"  traffic {duration(time['traffic'])}, at {100 * time['of_a_link']:.0f} % (assumed) of the links; "
        "the lower figure hides it behind the work",
    ]


def _rows(step: dict[str, Any]) -> str:
    rows, parts = step["rows_per_device"], step["micro_batches"]
    several = f" in {parts} micro-batches of {step['rows_per_micro_batch']}" if parts > 1 else ", one micro-batch"
    return f"{rows} row{'s' * (rows > 1)} per device{several}"


def _amount(number: float, unit: str) -> str:
    """``3.5 GB``, ``251 TFLOP``, ``1.01 PFLOP``."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number / 1e6:.3g} M{unit}"


def _passes(number: float, forwards: float) -> str:
    passes = "one pass" if number == 1 else f"{number:g} passes{'' if number.is_integer() else ' on average'}"
    return f"{passes} and {forwards:g} forward pass{'es' * (forwards != 1)}" if forwards else passes


def duration(seconds: float) -> str:
    """``0.42 s``, ``12 s``, ``3.5 min``, ``2.1 h``, ``4.0 days``."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.2g} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.1f} days"


def _verdict(facts: dict[str, Any]) -> list[str]:
    peak, memory = facts["memory"]["peak"] / GIB, facts["devices"]["memory"]
    most, size = next(part for part in _by_size(facts["memory"]) if not part[0].startswith("allocator"))
    if facts["fits"] is None:
        return [f"needs {peak:.1f} GiB; set --gpu or --gpu-memory to check whether that fits"]
    has = f"{memory / GIB:.1f} GiB"
    largest = facts["largest_micro_batch_tokens"]
    if facts["fits"]:
        return [
            f"fits: {peak:.1f} of {has}",
            f"largest micro-batch that fits: --tokens-per-micro-batch {largest}",
        ]
    lines = [f"does not fit: {peak:.1f} GiB of {has}; largest part: {most}, {size / GIB:.1f} GiB"]
    if largest is not None:
        lines.append(f"largest micro-batch that fits: --tokens-per-micro-batch {largest}")
    paths = {f"one after the other, {how}:": path for how, path in facts["together"].items()}
    for title, listed in {"what to change:": facts["changes"], **paths}.items():
        if listed:
            width = max(len(one["words"]) for one in listed)
            lines += ["", title]
            lines += [
                f"  {one['words']:{width}}  {one['peak'] / GIB:7.1f} GiB{'  fits' if one['fits'] else ''}{_host(one)}"
                for one in listed
            ]
    if not facts["changes"]:
        return [*lines, "no known change is enough: choose a smaller model"]
    if not any(one["fits"] for one in sum(paths.values(), facts["changes"])):
        lines += ["", "even all of these together do not fit: use more or larger GPUs, or a smaller model"]
    return lines


def _host(change: dict[str, Any]) -> str:
    """What an offloading change takes elsewhere."""
    return f"  ({change['host'] / GIB:.0f} GiB of host memory per node)" if "offload" in change["words"] else ""


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
