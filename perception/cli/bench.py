"""``perception bench``: how fast the engine is here, and how far from what the machine can do."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.tools.bench.limits import Limits
    from perception.tools.bench.peers import Library
    from perception.tools.bench.report import ScanResult
    from perception.tools.bench.sides import Shape
    from perception.tools.bench.target import Target
    from perception.tools.bench.workload import Sequence4D, VoxelSize, Workload

VOXEL = (0.05,) * 3
QUICK_VOXEL = (0.1,) * 3
NETWORKS = ("minkunet", "unet", "second", "centerpoint")
TOPICS = ("voxelize", "maps", "layers", *NETWORKS, "cold")
CPU_TOPICS = ("voxelize", "maps", "layers", "minkunet")
LIBRARIES = ("spconv", "spconv-triton")
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="perception bench",
        description="Times voxelization, kernel maps, convolution layers and whole networks, as "
        "milliseconds, against what this machine can do at most, and next to spconv and "
        "spconv-triton where they are installed.",
        epilog="Without PATH a simulated street scan is measured. A layer is KIND:IN:OUT[@STRIDE], "
        "e.g. subm:64:64, down:32:64 (2^3), down3:32:64 (3^3), up:64:32, subm:384:256@8.",
    )
    result.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a point file, or a folder of frames (adds 4D maps)",
    )
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    result.add_argument(
        "--dtype",
        choices=PRECISIONS,
        help="of features and weights (default float32, on cuda float16); tf32 needs cuda",
    )
    result.add_argument(
        "--voxel",
        action="append",
        type=_voxel,
        metavar="METRES",
        help="voxel size, one number or three (0.1,0.1,0.2); repeat it for several "
        f"(default {VOXEL[0]}, with --quick {QUICK_VOXEL[0]})",
    )
    result.add_argument(
        "--batch",
        action="append",
        type=_positive_int,
        metavar="N",
        help="scans in a batch: a folder's first N, or N copies; repeat it for several (default 1)",
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
        "--only",
        nargs="+",
        choices=TOPICS,
        metavar="TOPIC",
        help=f"of {', '.join(TOPICS)} (default: all, on the cpu {', '.join(CPU_TOPICS)})",
    )
    result.add_argument(
        "--against",
        nargs="*",
        choices=LIBRARIES,
        metavar="LIBRARY",
        help=f"compare with these of {' and '.join(LIBRARIES)}, or with none (default: all that are "
        "installed and run on the device)",
    )
    result.add_argument(
        "--quick", action="store_true", help="larger voxels, fewer layers and repetitions"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    return result


def run(argv: list[str]) -> int:
    """Measures and prints.

    Returns:
        0, or 1 where something could not be measured; it is named, and the rest is there.

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

    from perception.tools.bench import peers, report
    from perception.tools.bench.limits import measure_limits
    from perception.tools.bench.report import ScanResult

    target = _target(options, args)
    shapes = _shapes(options, args, target)
    libraries = peers.available(target, args.against)
    voxels = args.voxel or [QUICK_VOXEL if args.quick else VOXEL]
    scans = list(_scans(args.paths, voxels, args.batch or [1]))

    threads_before = torch.get_num_threads()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    results: list[ScanResult] = []
    try:
        with target.switches():
            about, load = report.machine(target, libraries), {"start": _load()}
            print(report.render_machine(about, load["start"][0] if load["start"] else None))
            for library in peers.LIBRARIES:
                if library.name in (args.against or ()) and library not in libraries:
                    print(f"note      no {library.name}: {library.obstacle(target)}")
            limits = measure_limits(quick=args.quick, target=target)

            def save() -> None:
                load["end"] = _load()
                _write(args.json, argv, results, limits, about, load)

            for scan, sequence in scans:
                _progress(f"{scan.name} at {scan.voxel_text} ...")
                results.append(ScanResult.of(scan))
                try:
                    _measure(results[-1], scan, sequence, shapes, args, target, libraries, save)
                except DeviceLost as error:
                    results[-1].failures.append(f"the GPU takes no more work: {error}")
                    break
                limits = limits.best_of(measure_limits(quick=args.quick, target=target))
            else:
                _progress("looking inside ...")
                _finish(results, target)
            save()
    finally:
        torch.set_num_threads(threads_before)
    print(report.render_limits(limits))
    for result in results:
        print("\n" + report.render_scan(result, limits), flush=True)
    return int(any(result.failures for result in results))


class DeviceLost(RuntimeError):
    """After an error from which the GPU does not recover in this process."""


def _target(options: argparse.ArgumentParser, args: argparse.Namespace) -> Target:
    import torch

    from perception._native import supports
    from perception.tools.bench.target import Target

    if args.device == "cpu":
        if args.dtype == "tf32":
            options.error("--dtype tf32 is measured on --device cuda only")
        return Target(precision=args.dtype or "float32")
    if not torch.cuda.is_available():
        options.error("--device cuda: this torch sees no CUDA device; see perception doctor")
    if not supports("cuda"):
        options.error("--device cuda: this build has no CUDA operators; see perception doctor")
    return Target(torch.device("cuda", torch.cuda.current_device()), args.dtype or "float16")


def _shapes(
    options: argparse.ArgumentParser, args: argparse.Namespace, target: Target
) -> tuple[Shape, ...]:
    from perception.tools.bench.conv import DEFAULT, GPU, QUICK
    from perception.tools.bench.sides import Shape

    if not args.layers:
        return GPU if target.is_cuda else QUICK if args.quick else DEFAULT
    try:
        return tuple(map(Shape.parse, args.layers))
    except ValueError as error:
        options.error(str(error))


def _scans(
    paths: list[str], voxels: list[VoxelSize], batches: list[int]
) -> Iterator[tuple[Workload, Sequence4D | None]]:
    from perception.tools.bench import workload

    for voxel in voxels:
        for batch in batches:
            if not paths:
                yield workload.simulated(voxel, batch=batch), workload.simulated_sequence()
            for path in paths:
                yield workload.from_path(path, voxel, batch=batch)


def _measure(
    result: ScanResult,
    scan: Workload,
    sequence: Sequence4D | None,
    shapes: tuple[Shape, ...],
    args: argparse.Namespace,
    target: Target,
    libraries: list[Library],
    save: Callable[[], None],
) -> None:
    """Adds everything that is asked for to the result, and saves after each part."""
    from perception.tools.bench import cold, conv, kernel_map, network, voxelize
    from perception.tools.bench.timing import Effort

    effort = Effort(0.1, 2, 10) if args.quick else Effort(0.6, 3, 20)
    long = Effort(0.0, 1, 1) if args.quick else Effort(20.0, 3, 5)
    if target.is_cuda:
        effort = Effort(0.05 if args.quick else 0.15, 5, 30)
        long = Effort(0.1 if args.quick else 0.8, 5, 30)
    topics = args.only or (TOPICS if target.is_cuda else CPU_TOPICS)
    if args.layers:
        topics = ("layers",)
    sites = scan.tensor(target.device).sites
    compared = {"libraries": libraries}
    there: dict[str, Any] = {**compared, "target": target}
    parts: list[tuple[str, Callable[[], Any]]] = []
    if "voxelize" in topics:
        parts.append(("voxelization", partial(voxelize.measure, scan, effort, target=target)))
    if "maps" in topics and target.is_cuda:
        parts += kernel_map.gpu_parts(sites, effort, **there)
    elif "maps" in topics:
        parts.append(("maps", partial(kernel_map.measure, scan, effort, **compared)))
        if sequence is not None:
            result.sequence = sequence.name
            maps = partial(kernel_map.measure_4d, sequence, effort, **compared)
            parts.append(("4D maps", maps))
    for shape in shapes if "layers" in topics else ():
        parts.append((str(shape), partial(conv.measure, shape, sites, effort, **there)))
    if sequence is not None and "layers" in topics and not args.layers and not args.quick:
        space_time = sequence.sites().to(target.device)
        for shape in conv.SEQUENCE:
            parts.append((str(shape), partial(conv.measure, shape, space_time, effort, **there)))
    for name in NETWORKS:
        if name in topics:
            train = target.is_cuda or not args.quick
            whole = partial(network.measure, name, scan, long, peers_train=train, **there)
            parts.append((network.NETWORKS[name], whole))
    if "cold" in topics:
        parts.append(("first call", partial(cold.measure, scan, **there)))

    for what, part in parts:
        _progress(f"  {what}")
        try:
            found = part()
        except Exception as error:
            if not target.is_cuda:
                raise
            # Memory, or a kernel that is not there: say so and measure the rest.
            result.failures.append(f"{what}: {_described(error)}")
            _still_there()
            continue
        if isinstance(found, network.NetworkResult):
            result.networks.append(found)
            found = found.rows
        result.rows += found
        save()


def _finish(results: list[ScanResult], target: Target) -> None:
    """What the profiler tells, which is asked last because it slows down what comes after it."""
    for result in results:
        for row in result.rows:
            try:
                row.finish()
            except Exception as error:
                if not target.is_cuda:
                    raise
                result.failures.append(f"inside of {row.name}: {_described(error)}")
                try:
                    _still_there()
                except DeviceLost:
                    return


def _described(error: Exception) -> str:
    """An error on one line: kind, message, and where it was raised."""
    lines = str(error).strip().splitlines() or [""]
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {lines[0][:300]} ({Path(place.filename).name}:{place.lineno})"


def _still_there() -> None:
    """Raises DeviceLost where the GPU takes no more work after an error."""
    import torch

    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        raise DeviceLost(str(error).splitlines()[0]) from None


def _write(
    file: Path | None,
    argv: list[str],
    results: list[ScanResult],
    limits: Limits,
    about: dict[str, Any],
    load: dict[str, list[float]],
) -> None:
    from perception.tools.bench import report

    if file is None:
        return
    values = report.record(
        results,
        limits,
        about,
        command=shlex.join(["perception", "bench", *argv]),
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        load=load,
    )
    file.write_text(json.dumps(values, indent=1) + "\n")


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


def _voxel(text: str) -> VoxelSize:
    values = [float(part) for part in text.split(",")]
    if len(values) not in (1, 3) or not all(0 < value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number, nor three of them")
    x, y, z = values * (3 // len(values))
    return x, y, z
