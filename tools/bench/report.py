"""The results as a table to read and as JSON to keep."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from perception.tools.bench.limits import Limits
from perception.tools.bench.network import NetworkResult
from perception.tools.bench.peers import Library
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.target import FLOAT32, Target
from perception.tools.bench.timing import Timing, clock_name
from perception.tools.bench.workload import Workload

__all__ = [
    "FORMAT",
    "ScanResult",
    "machine",
    "record",
    "render_limits",
    "render_machine",
    "render_scan",
]

FORMAT = "perception-bench-2"
TITLES = {
    "voxelize": "Voxelization",
    "maps": "Index, sites and kernel maps",
    "layers": "Layers, maps given (@s: on the sites of stride s)",
    "network": "Networks",
    "cold": "First call in a new process",
}


@dataclass
class ScanResult:
    """Everything measured on one scan at one voxel size."""

    name: str
    voxel: str
    points: int
    sites: int
    rows: list[Row] = field(default_factory=list)
    networks: list[NetworkResult] = field(default_factory=list)
    sequence: str | None = None
    failures: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, scan: Workload) -> ScanResult:
        """Nothing measured yet."""
        sites = scan.tensor().num_sites
        return cls(scan.name, scan.voxel_text, len(scan.points), sites)


def machine(target: Target = FLOAT32, libraries: Sequence[Library] = ()) -> dict[str, Any]:
    """What the figures depend on: processor, threads, GPU, precision, versions."""
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
        "libraries": {library.name: library.version for library in libraries},
        "device": target.device.type,
        "precision": target.precision,
        "gpu": _gpu(target) if target.is_cuda else None,
    }


def _gpu(target: Target) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(target.device)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
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
    return {
        "name": scan.name,
        "voxel": scan.voxel,
        "points": scan.points,
        "sites": scan.sites,
        "sequence": scan.sequence,
        "rows": [row.record(limits) for row in scan.rows],
        "splits": {network.name: _split_record(network) for network in scan.networks},
        "failures": scan.failures,
    }


def _split_record(network: NetworkResult) -> dict[str, Any]:
    return {
        "operators": network.operators,
        "kernels": network.kernels,
        "shapes": [
            {"name": s.name, "calls": s.calls, "seconds": s.seconds, "gflops": s.gflops}
            for s in network.shapes
        ],
    }


# -- text ------------------------------------------------------------------------------------------


def render_machine(about: dict[str, Any], load: float | None) -> str:
    libraries = about["libraries"]
    others = [f"{name} {version}" for name, version in libraries.items()] or ["no other library"]
    gpu = about["gpu"]
    lines = [
        f"machine   {about['processor']}, {about['cores']} cores, {about['threads']} threads, "
        f"{about['instruction_set']}, {about['memory_gib']} GiB",
        f"software  perception {about['perception']}, torch {about['torch']}, "
        f"Python {about['python']}, {', '.join(others)}",
    ]
    if gpu is not None:
        lines += [
            f"GPU       {gpu['name']}, {gpu['memory_gib']} GiB, {gpu['multiprocessors']} "
            f"multiprocessors, compute capability {gpu['capability']}, CUDA {gpu['cuda']}",
            f"times     {about['precision']}; between events, medians of bursts that take turns; "
            "kernels: what the GPU works; host: until a call returns",
        ]
    else:
        lines.append(
            f"times     {about['precision']}; {about['clock']} time, medians of calls that take turns"
        )
    if not libraries:
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
    out = [f"== {scan.name} at {scan.voxel}: {scan.points} points, {scan.sites} sites"]
    if scan.sequence:
        out.append(f"   4D: {scan.sequence}")
    for topic, title in TITLES.items():
        rows = [row for row in scan.rows if row.topic == topic]
        if rows:
            out += ["", *_topic(topic, title, rows, limits)]
    for network in scan.networks:
        out += ["", *_split(network)]
    notes = [f"note: {row.name}: {note}" for row in scan.rows for note in row.notes]
    failures = [f"FAILED: {failure}" for failure in scan.failures]
    return "\n".join([*out, *([""] if notes or failures else []), *notes, *failures])


def _topic(topic: str, title: str, rows: list[Row], limits: Limits) -> Iterator[str]:
    libraries = sorted({library for row in rows for library in row.rates})
    peer_names = sorted({name for row in rows for name in row.peers})
    memory = topic == "network"
    gpu = any(row.timings[OURS].host is not None for row in rows)
    if gpu:
        head = [title, "sites", "pairs", "ms", "kernels", "host", "floor ms", "x floor"]
    else:
        rate = "GFLOP/s" if any(row.flop for row in rows) else "M/s"
        head = [title, "sites", "pairs", "ms", "min", rate, "limit ms", "share"]
        head += [f"dense {library}" for library in libraries]
    head += ["peak MB"] if memory else []
    for name in peer_names:
        head += [f"{name} ms", *(["kernels"] if gpu else []), "ratio"]
        head += ["its MB"] if memory else []
    body = []
    for row in rows:
        cells = _gpu_cells(row, limits) if gpu else _cpu_cells(row, limits, libraries)
        cells += [_mb(row.peak_memory.get(OURS))] if memory else []
        for name in peer_names:
            cells += _peer_cells(row, row.timings.get(name), gpu)
            cells += [_mb(row.peak_memory.get(name))] if memory else []
        body.append(cells)
    yield from _columns([head, *body])


def _sizes(row: Row) -> list[str]:
    sites = row.counts.get("sites", row.counts.get("in_sites"))
    return [row.name, _integer(sites), _integer(row.counts.get("pairs"))]


def _cpu_cells(row: Row, limits: Limits, libraries: list[str]) -> list[str]:
    counts, ours = row.counts, row.timings[OURS]
    bound, binds = row.limit(limits)
    cells = [*_sizes(row), _ms(ours.median), _ms(ours.minimum)]
    if row.gflops is not None:
        cells.append(f"{row.gflops:.0f}")
    else:
        done = counts.get("pairs", counts.get("points", counts.get("sites", 0)))
        cells.append(f"{done / ours.median / 1e6:.1f}")
    cells += [_ms(bound), f"{100 * row.share(limits):.0f}% {binds}"]
    return cells + [f"{row.rates[lib]:.0f}" if lib in row.rates else "-" for lib in libraries]


def _gpu_cells(row: Row, limits: Limits) -> list[str]:
    ours = row.timings[OURS]
    bound, binds = row.limit(limits)
    cells = [*_sizes(row), _ms(ours.median), _ms(ours.busy), _ms(ours.host)]
    if not bound:
        return [*cells, "-", "-"]
    return [*cells, _ms(bound), f"{ours.median / bound:.1f} {binds}"]


def _peer_cells(row: Row, peer: Timing | None, gpu: bool) -> list[str]:
    if peer is None:
        return ["-"] * (3 if gpu else 2)
    ratio = f"{peer.median / row.seconds:.2f}x" if row.seconds else "-"
    return [_ms(peer.median), *([_ms(peer.busy)] if gpu else []), ratio]


def _split(network: NetworkResult) -> Iterator[str]:
    for what, seconds in network.operators.items():
        total = sum(seconds.values())
        rows = [
            [kind, _ms(s), f"{100 * s / total:.0f}%"]
            for kind, s in seconds.items()
            if s > 0.002 * total
        ]
        title = f"Where the time goes: {network.name}, {what}"
        yield from _columns([[title, "ms", "of it"], *rows])
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


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    ms = seconds * 1e3
    digits = 0 if ms >= 100 else 1 if ms >= 10 else 2 if ms >= 1 else 3
    return f"{ms:.{digits}f}"


def _mb(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"


def _integer(value: int | None) -> str:
    return "-" if value is None else f"{value}"
