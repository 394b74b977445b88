"""``perception bench``: how fast the engine is here, and how far from what the machine can do."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perception.tools.bench.conv import Shape
    from perception.tools.bench.report import ScanResult
    from perception.tools.bench.workload import Sequence4D, Workload

VOXEL = 0.05
QUICK_VOXEL = 0.1


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="perception bench",
        description="Times voxelization, kernel maps, convolution layers and a whole MinkUNet42, as "
        "milliseconds, as a share of what this machine can do at most, and next to spconv where it "
        "is installed.",
        epilog="Without PATH a simulated street scan is measured. A layer is KIND:IN:OUT[@STRIDE], "
        "e.g. subm:64:64, down:32:64, up:64:32, subm:384:256@8.",
    )
    result.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a point file, or a folder of frames (adds 4D maps)",
    )
    result.add_argument(
        "--voxel",
        action="append",
        type=_positive_float,
        metavar="METRES",
        help=f"voxel size; repeat it for several (default {VOXEL}, with --quick {QUICK_VOXEL})",
    )
    result.add_argument(
        "--threads",
        type=_positive_int,
        metavar="N",
        help="default: as torch does; 1 counts processor time, which other processes do not lengthen",
    )
    result.add_argument(
        "--layers", nargs="+", metavar="LAYER", help="measure these layers and nothing else"
    )
    result.add_argument(
        "--quick", action="store_true", help="larger voxels, fewer layers and repetitions"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    return result


def run(argv: list[str]) -> int:
    """Measures and prints.

    Returns:
        0.

    Raises:
        FileNotFoundError: a PATH or the folder of the JSON file does not exist.
        perception.io.FormatError: a PATH is no point file.
        SystemExit: wrong usage.
    """
    options = parser()
    args = options.parse_args(argv)
    if args.json is not None and not args.json.resolve().parent.is_dir():
        raise FileNotFoundError(f"{args.json}: its folder does not exist; create it first")

    # Or the profiler writes to stderr whenever it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch

    from perception.tools.bench import report
    from perception.tools.bench.conv import DEFAULT, QUICK, Shape
    from perception.tools.bench.limits import measure_limits

    try:
        shapes = (
            tuple(map(Shape.parse, args.layers))
            if args.layers
            else QUICK
            if args.quick
            else DEFAULT
        )
    except ValueError as error:
        options.error(str(error))
    scans = list(_scans(args.paths, args.voxel or [QUICK_VOXEL if args.quick else VOXEL]))

    threads_before = torch.get_num_threads()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        about, load = report.machine(), {"start": _load()}
        print(report.render_machine(about, load["start"][0] if load["start"] else None))
        limits = measure_limits(quick=args.quick)
        results = []
        for scan, sequence in scans:
            _progress(f"{scan.name} at {scan.voxel_size:g} m ...")
            result = _measure(scan, sequence, shapes, args, peer=about["spconv"] is not None)
            limits = limits.best_of(measure_limits(quick=args.quick))
            results.append(result)
        load["end"] = _load()
    finally:
        torch.set_num_threads(threads_before)
    print(report.render_limits(limits))
    for result in results:
        print("\n" + report.render_scan(result, limits), flush=True)
    if args.json is not None:
        values = report.record(
            results,
            limits,
            about,
            command=shlex.join(["perception", "bench", *argv]),
            date=datetime.now().astimezone().isoformat(timespec="seconds"),
            load=load,
        )
        args.json.write_text(json.dumps(values, indent=1) + "\n")
    return 0


def _scans(paths: list[str], voxels: list[float]) -> Iterator[tuple[Workload, Sequence4D | None]]:
    from perception.tools.bench import workload

    for voxel in voxels:
        if not paths:
            yield workload.simulated(voxel), workload.simulated_sequence()
        for path in paths:
            yield workload.from_path(path, voxel)


def _measure(
    scan: Workload,
    sequence: Sequence4D | None,
    shapes: tuple[Shape, ...],
    args: argparse.Namespace,
    *,
    peer: bool,
) -> ScanResult:
    from perception.tools.bench import conv, kernel_map, network, voxelize
    from perception.tools.bench.report import ScanResult
    from perception.tools.bench.timing import Effort

    effort = Effort(0.1, 2, 10) if args.quick else Effort(0.6, 3, 20)
    sites = scan.tensor().sites
    result = ScanResult(scan.name, scan.voxel_size, len(scan.points), sites.num_sites)
    if not args.layers:
        result.rows += voxelize.measure(scan, effort)
        result.rows += kernel_map.measure(scan, effort, peer=peer)
        if sequence is not None:
            result.sequence = sequence.name
            result.rows += kernel_map.measure_4d(sequence, effort, peer=peer)
    for shape in shapes:
        _progress(f"  {shape}")
        result.rows += conv.measure(shape, sites, effort, peer=peer)
    if not args.layers:
        _progress("  MinkUNet42")
        long = Effort(0.0, 1, 1) if args.quick else Effort(20.0, 2, 5)
        result.network = network.measure(scan, long, peer=peer, peer_trains=not args.quick)
        result.rows += result.network.rows
    return result


def _load() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def _progress(text: str) -> None:
    """To people who wait, not into files."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
