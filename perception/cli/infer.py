"""``perception infer PATH...``: labels, a coloured cloud and a picture of any point-cloud file."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.inputs import Job, collect
from perception.io import FormatError, read

if TYPE_CHECKING:
    from perception.inference import Prediction
    from perception.pipeline import Pipeline

Segment = Callable[[], "Prediction"]


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="perception infer",
        description="Segment point-cloud files with a trained network. Writes NAME.label (uint32, "
        "one class a row of the file), NAME.ply (the points with class, score and colour) and "
        "NAME.json (classes, shares, times). A network over space and time takes the scans of a folder "
        "as a drive: each is labelled with those before it in mind, by the poses in the folder.",
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
    result.add_argument(
        "--augment",
        type=int,
        default=1,
        metavar="N",
        help="average N turned and mirrored copies of the cloud",
    )
    result.add_argument(
        "--precision", default="float32", help="of the products: float32, bfloat16 or float16"
    )
    result.add_argument(
        "--memory",
        type=float,
        metavar="GB",
        help="what the network may take, by default half of what is free; larger clouds are cut "
        "into overlapping tiles",
    )
    result.add_argument(
        "--poses", type=Path, help="file of the drive's poses, instead of poses.txt in its folder"
    )
    result.add_argument(
        "--frames", type=int, help="scans that the network sees at once, instead of as in training"
    )
    return result


def in_bytes(gigabytes: float) -> int:
    """Bytes of a number of GB."""
    if not 0 < gigabytes < math.inf:
        raise ValueError(f"--memory {gigabytes:g} GB; give a positive number, or leave it out")
    return max(round(gigabytes * 1e9), 1)


def run(argv: list[str]) -> int:
    """Segment the files; one that cannot be read is reported and the others are still done.

    Returns:
        0, or 1 if a file failed.
    """
    options = parser().parse_args(argv)
    jobs = collect(options.paths)
    from perception.pipeline import load

    memory = None if options.memory is None else in_bytes(options.memory)
    pipeline = load(options.model, options.device, precision=options.precision, memory=memory)
    say(options, f"{pipeline.name}: {len(pipeline.names)} classes on {pipeline.device}")

    reports: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    start = time.perf_counter()
    for number, (job, ask) in enumerate(planned(pipeline, jobs, options), start=1):
        place = f"[{number}/{len(jobs)}] " if len(jobs) > 1 else ""
        notes: list[str] = []
        try:
            with noted(notes):
                report = segment(ask, job, options)
        except (ValueError, OSError, MemoryError) as error:
            message = " ".join(str(error).split()) or type(error).__name__
            failed.append({"path": str(job.path), "error": message})
            print(f"perception infer: {place}{message}", file=sys.stderr)
            continue
        reports.append({**report, "notes": notes})
        left = (time.perf_counter() - start) / number * (len(jobs) - number)
        say(options, place + describe(report, left if number < len(jobs) else 0.0))
        for note in notes:
            which = "" if job.path.name in note else f"{job.path.name}: "
            print(f"note: {place}{which}{note}", file=sys.stderr, flush=True)
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


@contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Collects the warnings about one file, which else would not say about which."""

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        if text not in notes:
            notes.append(text)

    with warnings.catch_warnings():
        # A file's warning is due even where another file gave the same one.
        warnings.filterwarnings("always", category=UserWarning, module="perception")
        warnings.showwarning = note
        yield


def say(options: argparse.Namespace, text: str) -> None:
    """Print progress; to stderr where stdout carries the JSON report."""
    print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def planned(
    pipeline: Pipeline, jobs: Sequence[Job], options: argparse.Namespace
) -> Iterator[tuple[Job, Segment]]:
    """Every job and how it is done: alone, or as the next scan of its folder's drive."""

    def alone(job: Job) -> Segment:
        return lambda: pipeline(job.path, layout=layout(job, options), augment=options.augment)

    if not pipeline.takes_sequences:
        if options.poses or options.frames:
            raise ValueError(
                f"--poses and --frames are for networks over several scans, and {pipeline.name} sees "
                "one at a time; leave them out, or choose another --model"
            )
        for job in jobs:
            yield job, alone(job)
        return
    for folder, group in groupby(jobs, key=lambda job: job.path.parent):
        scans = list(group)
        yield from drive(pipeline, folder, scans, options) or ((job, alone(job)) for job in scans)


def drive(
    pipeline: Pipeline, folder: Path, jobs: Sequence[Job], options: argparse.Namespace
) -> Iterator[tuple[Job, Segment]] | None:
    """The scans of a folder in their order, or None where each stands alone."""
    from perception.inference import find_drive

    if len(jobs) == 1:
        return None
    known = find_drive([job.path for job in jobs], options.poses)
    if known is None:
        say(
            options,
            f"{folder}: no poses.txt beside the scans, so each is labelled alone; --poses FILE names one",
        )
        return None
    stream = pipeline.stream(frames=options.frames, augment=options.augment)
    why = f" ({stream.reason})" if stream.reason else ""
    say(
        options,
        f"{folder}: {len(jobs)} scans as one drive by {known.source}, keeping {stream.keep}{why}",
    )

    def scan(number: int) -> Segment:
        path = jobs[number].path
        moment = None if known.times is None else float(known.times[number])

        def ask() -> Prediction:
            start = time.perf_counter()
            try:
                cloud = read(path, layout=layout(jobs[number], options))
            except (ValueError, OSError, MemoryError):
                stream.skip()
                raise
            took = time.perf_counter() - start
            result = stream.push(cloud, known.poses[number], time=moment, source=path.name)
            return replace(result, seconds={"read": took, **result.seconds})

        return ask

    return ((job, scan(number)) for number, job in enumerate(jobs))


def layout(job: Job, options: argparse.Namespace) -> str | None:
    """The layout of the job's file, as far as it has no header."""
    return options.layout if job.path.name.lower().endswith(".bin") else None


def segment(ask: Segment, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Segment one file and write its results; what ``NAME.json`` says, and the files written."""
    stem = options.output / job.output
    targets = [stem.with_name(stem.name + end) for end in (".label", ".ply", ".json")]
    if options.picture:
        targets.append(stem.with_name(stem.name + ".png"))
    for target in targets:
        if target.exists() and target.samefile(job.path):
            raise FormatError(job.path, "would be overwritten", "choose another --output")
    prediction = ask()
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
    text = report["method"]["text"]
    how = f"  {text}\n" if text else ""
    return (
        f"{report['path']}: {report['points']:,} points, {report['voxels']:,} voxels{remaining}\n{how}"
        f"  {times}\n  {', '.join(parts)}\n  wrote {files[0]} {suffixes}"
    )
