"""The results as a table to read and as JSON to keep."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from perception.tools.bench import peers
from perception.tools.bench.limits import Limits
from perception.tools.bench.network import NetworkResult
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.timing import clock_name

__all__ = [
    "FORMAT",
    "ScanResult",
    "machine",
    "record",
    "render_limits",
    "render_machine",
    "render_scan",
]

FORMAT = "perception-bench-1"
TITLES = {
    "voxelize": "Voxelization",
    "maps": "Index, sites and kernel maps",
    "layers": "Layers, maps given, float32 (@s: on the sites of stride s)",
    "network": "MinkUNet42, float32, batch 1",
}


@dataclass
class ScanResult:
    """Everything measured on one scan at one voxel size."""

    name: str
    voxel_size: float
    points: int
    sites: int
    rows: list[Row] = field(default_factory=list)
    network: NetworkResult | None = None
    sequence: str | None = None


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, threads, versions."""
    from perception import __version__
    from perception._native import instruction_set

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "clock": clock_name(),
        "instruction_set": instruction_set(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "perception": __version__,
        "spconv": peers.version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line.partition(":") for line in info.read_text().splitlines()]
        fields = {key.strip(): value.strip() for key, _, value in lines}
        name = fields.get("model name")
        if name:
            return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})"
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


# -- JSON ------------------------------------------------------------------------------------------


def record(
    scans: Sequence[ScanResult],
    limits: Limits,
    about: dict[str, Any],
    *,
    command: str,
    date: str,
    load: dict[str, list[float]],
) -> dict[str, Any]:
    """The whole run as JSON values: seconds, bytes, GFLOP/s, GB/s, metres."""
    return {
        "format": FORMAT,
        "date": date,
        "command": command,
        "machine": about,
        "load": load,
        "limits": {
            "gflops": limits.gflops,
            "fma_gflops": limits.fma,
            "product_gflops": limits.products,
            "copy_gbps": limits.copy,
            "threads": limits.threads,
        },
        "scans": [_scan_record(scan, limits) for scan in scans],
    }


def _scan_record(scan: ScanResult, limits: Limits) -> dict[str, Any]:
    split = None
    if scan.network is not None:
        split = {
            "operators": scan.network.operators,
            "shapes": [
                {"name": s.name, "calls": s.calls, "seconds": s.seconds, "gflops": s.gflops}
                for s in scan.network.shapes
            ],
        }
    return {
        "name": scan.name,
        "voxel_size": scan.voxel_size,
        "points": scan.points,
        "sites": scan.sites,
        "sequence": scan.sequence,
        "rows": [row.record(limits) for row in scan.rows],
        "split": split,
    }


# -- text ------------------------------------------------------------------------------------------


def render_machine(about: dict[str, Any], load: float | None) -> str:
    spconv = f"spconv {about['spconv']}" if about["spconv"] else "no spconv"
    lines = [
        f"machine   {about['processor']}, {about['cores']} cores, {about['threads']} threads, "
        f"{about['instruction_set']}, {about['memory_gib']} GiB",
        f"software  perception {about['perception']}, torch {about['torch']}, "
        f"Python {about['python']}, {spconv}",
        f"times     {about['clock']} time, medians of calls that take turns",
    ]
    if not about["spconv"]:
        lines.append('note      no comparison with spconv: pip install "sparse-perception[spconv]"')
    if load is not None and load > 0.3 * about["cores"]:
        lines.append(
            f"note      the machine is busy (load {load:.1f} on {about['cores']} cores): "
            + (
                "wall times are upper bounds; --threads 1 counts processor time instead"
                if about["clock"] == "wall"
                else "times are a little high, caches and clocks are shared"
            )
        )
    return "\n".join(lines)


def render_limits(limits: Limits) -> str:
    fma = "" if limits.fma is None else f"{limits.fma:.0f} multiply-adds on registers, "
    products = ", ".join(f"{rate:.0f} {name}" for name, rate in limits.products.items())
    return f"limits    GFLOP/s: {fma}{products}; copy {limits.copy:.1f} GB/s"


def render_scan(scan: ScanResult, limits: Limits) -> str:
    """The tables of one scan."""
    out = [f"== {scan.name} at {scan.voxel_size:g} m: {scan.points} points, {scan.sites} sites"]
    if scan.sequence:
        out.append(f"   4D: {scan.sequence}")
    for topic, title in TITLES.items():
        rows = [row for row in scan.rows if row.topic == topic]
        if rows:
            out += ["", *_topic(topic, title, rows, limits)]
    if scan.network is not None:
        out += ["", *_split(scan.network)]
    return "\n".join(out)


def _topic(topic: str, title: str, rows: list[Row], limits: Limits) -> Iterator[str]:
    libraries = sorted({library for row in rows for library in row.rates})
    peer_names = sorted({name for row in rows for name in row.peers})
    with_flop = any(row.flop for row in rows)
    head = [title, "sites", "pairs", "ms", "min"]
    head += ["GFLOP/s"] if with_flop else ["M/s"]
    head += ["limit ms", "share"]
    head += [f"dense {library}" for library in libraries]
    head += ["peak MB"] if topic == "network" else []
    for name in peer_names:
        head += [f"{name} ms", "ratio"] + (["its MB"] if topic == "network" else [])
    yield from _columns(
        [head, *(_cells(row, topic, limits, libraries, peer_names) for row in rows)]
    )


def _cells(
    row: Row, topic: str, limits: Limits, libraries: list[str], peer_names: list[str]
) -> list[str]:
    counts, ours = row.counts, row.timings[OURS]
    sites = counts.get("sites", counts.get("in_sites"))
    bound, binds = row.limit(limits)
    cells = [row.name, _integer(sites), _integer(counts.get("pairs"))]
    cells += [_ms(ours.median), _ms(ours.minimum)]
    if row.gflops is not None:
        cells.append(f"{row.gflops:.0f}")
    else:
        done = counts.get("pairs", counts.get("points", counts.get("sites", 0)))
        cells.append(f"{done / ours.median / 1e6:.1f}")
    cells += [_ms(bound), f"{100 * row.share(limits):.0f}% {binds}"]
    cells += [f"{row.rates[lib]:.0f}" if lib in row.rates else "-" for lib in libraries]
    if topic == "network":
        cells.append(_mb(row.peak_memory.get(OURS)))
    for name in peer_names:
        peer = row.timings.get(name)
        cells += (
            ["-", "-"] if peer is None else [_ms(peer.median), f"{peer.median / ours.median:.2f}x"]
        )
        if topic == "network":
            cells.append(_mb(row.peak_memory.get(name)))
    return cells


def _split(network: NetworkResult) -> Iterator[str]:
    for what, seconds in network.operators.items():
        total = sum(seconds.values())
        rows = [
            [kind, _ms(s), f"{100 * s / total:.0f}%"]
            for kind, s in seconds.items()
            if s > 0.002 * total
        ]
        yield from _columns([[f"Where the time goes: {what}", "ms", "of it"], *rows])
        yield ""
    total = sum(share.seconds for share in network.shapes)
    rows = [
        [s.name, str(s.calls), _ms(s.seconds), f"{100 * s.seconds / total:.0f}%", f"{s.gflops:.0f}"]
        for s in network.shapes
    ]
    head = ["Its convolutions by shape: forward", "calls", "ms", "of them", "GFLOP/s"]
    yield from _columns([head, *rows])


def _columns(rows: list[list[str]]) -> Iterator[str]:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for i, row in enumerate(rows):
        cells = [
            row[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  ".join(cells).rstrip()
        if i == 0:
            yield "-" * (sum(widths) + 2 * (len(widths) - 1))


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def _mb(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"


def _integer(value: int | None) -> str:
    return "-" if value is None else f"{value}"
