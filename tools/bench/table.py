"""Results as Markdown: what `perception bench --json` wrote, scan by scan in columns.

    python -m perception.tools.bench.table RESULT.json ...

prints one table a topic. A cell has our milliseconds, in brackets how many times the floor that is
(on the CPU GFLOP/s and share of the limit) and, where the GPU waits for the host for much of it, how
long its kernels run; after dots the milliseconds of the other libraries.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perception.tools.bench.report import TITLES
from perception.tools.bench.row import OURS

__all__ = ["main", "render"]

WAITS = 0.8
"""Kernels that run for a smaller part of the time than this are shown."""


def render(results: Sequence[dict[str, Any]]) -> str:
    """The Markdown of one or more runs, in their order."""
    columns = [(values, scan) for values in results for scan in values["scans"]]
    names = sorted({name for values in results for name in values["machine"]["libraries"]})
    out = [*_about(results), ""]
    heads = [_head(values, scan) for values, scan in columns]
    out += _table(
        "",
        heads,
        {
            "points, sites": [f"{s['points']:,}, {s['sites']:,}" for _, s in columns],
            "matrix product, TFLOP/s": [f"{v['limits']['gflops'] / 1e3:.3g}" for v, _ in columns],
            "copy, GB/s": [f"{v['limits']['copy_gbps']:.0f}" for v, _ in columns],
        },
    )
    for topic, title in TITLES.items():
        rows: dict[str, list[str]] = {}
        for place, (_, scan) in enumerate(columns):
            for row in scan["rows"]:
                if row["topic"] == topic:
                    cells = rows.setdefault(row["name"], ["–"] * len(columns))
                    cells[place] = _cell(row, names)
        if rows:
            out += ["", *_table(f"{title}, ms" + "".join(f" · {n}" for n in names), heads, rows)]
    memory: dict[str, list[str]] = {}
    for place, (_, scan) in enumerate(columns):
        for row in scan["rows"]:
            if row["peak_memory"]:
                cells = memory.setdefault(row["name"], ["–"] * len(columns))
                cells[place] = " · ".join(
                    f"{size / 1e6:,.0f}" for size in row["peak_memory"].values()
                )
    if memory:
        out += ["", *_table("Peak memory, MB", heads, memory)]
    notes = [
        f"- {scan['name']}: {row['name']}: {note}"
        for _, scan in columns
        for row in scan["rows"]
        for note in row["notes"]
    ]
    failures = [
        f"- {scan['name']}: FAILED: {what}" for _, scan in columns for what in scan["failures"]
    ]
    return "\n".join([*out, *([""] if notes or failures else []), *notes, *failures])


def _about(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    for values in results:
        about = values["machine"]
        where = about["gpu"]["name"] if about["gpu"] else about["processor"]
        others = "".join(f", {name} {version}" for name, version in about["libraries"].items())
        yield (
            f"`{values['command']}`: {values['date']}, {where}, {about['precision']}, "
            f"torch {about['torch']}{others}  "
        )


def _head(values: dict[str, Any], scan: dict[str, Any]) -> str:
    precision = values["machine"]["precision"]
    return f"{scan['name']}, {scan['voxel']}" + (f", {precision}" if precision != "float32" else "")


def _table(title: str, heads: Sequence[str], rows: dict[str, list[str]]) -> Iterator[str]:
    yield "| " + " | ".join([title, *heads]) + " |"
    yield "|" + "---|" * (len(heads) + 1)
    for name, cells in rows.items():
        yield "| " + " | ".join([name, *cells]) + " |"


def _cell(row: dict[str, Any], names: Sequence[str]) -> str:
    seconds = row["seconds"]
    ours = seconds[OURS]
    text = _ms(ours["median"])
    if "host" in ours:
        remarks = []
        if row["limit_seconds"]:
            remarks.append(f"{ours['median'] / row['limit_seconds']:.1f}×")
        busy = ours.get("busy", ours["median"])
        if busy < WAITS * ours["median"]:
            remarks.append(f"kernels {_ms(busy)}")
        text += f" ({'; '.join(remarks)})" if remarks else ""
    elif row["gflops"] is not None:
        text += f" ({row['gflops']:.0f}; {100 * row['share_of_limit']:.0f} %)"
    others = [_ms(seconds[name]["median"]) if name in seconds else "–" for name in names]
    while others and others[-1] == "–":
        others.pop()
    return " · ".join([text, *others])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def main(files: Sequence[str]) -> None:
    """Prints the tables of the named files."""
    print(render([json.loads(Path(file).read_text()) for file in files]))


if __name__ == "__main__":
    main(sys.argv[1:])
