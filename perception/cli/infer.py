"""``perception infer PATH...``: labels, a coloured cloud and a picture of any point-cloud file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from perception.cli.inputs import Job, collect
from perception.io import FormatError


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="perception infer",
        description="Segment point-cloud files with a trained network. Writes NAME.label (uint32, "
        "one class a row of the file), NAME.ply (the points with class, score and colour) and "
        "NAME.json (classes, shares, times).",
    )
    result.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file or a folder")
    result.add_argument(
        "--model", default="street-minkunet", help="a bundled model or a .safetensors file"
    )
    result.add_argument(
        "--output", type=Path, default=Path("predictions"), help="folder for the results"
    )
    result.add_argument("--device", default="auto", help="auto, cpu or cuda")
    result.add_argument("--picture", action="store_true", help="also write NAME.png")
    result.add_argument("--json", action="store_true", help="print a JSON report instead of text")
    result.add_argument("--layout", help="what a headerless .bin file holds: kitti, nuscenes, ...")
    return result


def run(argv: list[str]) -> int:
    """Segment the files; one that cannot be read is reported and the others are still done.

    Returns:
        0, or 1 if a file failed.
    """
    options = parser().parse_args(argv)
    jobs = collect(options.paths)
    from perception.pipeline import load

    pipeline = load(options.model, options.device)
    say(options, f"{pipeline.name}: {len(pipeline.names)} classes on {pipeline.device}")

    reports: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    start = time.perf_counter()
    for number, job in enumerate(jobs, start=1):
        place = f"[{number}/{len(jobs)}] " if len(jobs) > 1 else ""
        try:
            report = segment(pipeline, job, options)
        except (ValueError, OSError, MemoryError) as error:
            message = " ".join(str(error).split()) or type(error).__name__
            failed.append({"path": str(job.path), "error": message})
            print(f"perception infer: {place}{message}", file=sys.stderr)
            continue
        reports.append(report)
        left = (time.perf_counter() - start) / number * (len(jobs) - number)
        say(options, place + describe(report, left if number < len(jobs) else 0.0))
    if options.json:
        content = {
            "model": pipeline.name,
            "device": str(pipeline.device),
            "files": reports,
            "failed": failed,
        }
        print(json.dumps(content, indent=1))
    elif len(jobs) > 1:
        took = time.perf_counter() - start
        print(f"{len(reports)} of {len(jobs)} files in {took:.1f} s, in {options.output}")
    return 1 if failed else 0


def say(options: argparse.Namespace, text: str) -> None:
    """Print progress; to stderr where stdout carries the JSON report."""
    print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def segment(pipeline: Any, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Segment one file and write its results; what ``NAME.json`` says, and the files written."""
    layout = options.layout if job.path.name.lower().endswith(".bin") else None
    stem = options.output / job.output
    targets = [stem.with_name(stem.name + end) for end in (".label", ".ply", ".json")]
    if options.picture:
        targets.append(stem.with_name(stem.name + ".png"))
    for target in targets:
        if target.exists() and target.samefile(job.path):
            raise FormatError(job.path, "would be overwritten", "choose another --output")
    prediction = pipeline(job.path, layout=layout)
    start = time.perf_counter()
    # The JSON report comes last and holds the time that writing took.
    for target in [t for t in targets if t.suffix != ".json"]:
        prediction.save(target)
    prediction.seconds["write"] = time.perf_counter() - start
    prediction.save(targets[2])
    report: dict[str, Any] = prediction.summary()
    return {"path": str(job.path), **report, "files": [str(target) for target in targets]}


def describe(report: dict[str, Any], left: float) -> str:
    """The lines that tell a person about one file."""
    times = ", ".join(f"{name} {value:.2f} s" for name, value in report["seconds"].items())
    shares = report["shares"].items()
    parts = [f"{n} {100 * s:.0f} %" if s >= 0.01 else f"{n} <1 %" for n, s in shares]
    files = report["files"]
    suffixes = " ".join(Path(file).suffix for file in files[1:])
    remaining = f"  ({left:.0f} s left)" if left >= 1 else ""
    return (
        f"{report['path']}: {report['points']:,} points, {report['voxels']:,} voxels{remaining}\n"
        f"  {times}\n  {', '.join(parts)}\n  wrote {files[0]} {suffixes}"
    )
