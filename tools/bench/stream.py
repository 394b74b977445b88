"""What a frame of a running sequence costs, against a single frame of the same network over space.

    python -m perception.tools.bench.stream [FOLDER] [--poses FILE] [--voxel-size 0.1] [--depth 18]

The scans of FOLDER (with its poses, see ``perception.inference.find_drive``), or of a simulated drive,
go one after the other through networks of random weights that differ in their kernel alone:

- ``3D``: MinkUNet over space, every scan alone;
- ``causal, layers``: over space and time, never looking ahead; past layers are kept;
- ``causal, frames`` / ``hybrid, frames``: the same scan, with the network run on the last `--frames`.

Measured is the process's processor time of one thread from cloud to labels, the least of `--rounds`
rounds for each scan, the mean over the scans that have all frames before them. Beside it: the labels of
the kept layers against one run on all frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perception.datasets.encode import Encoder
from perception.datasets.sample import Sample
from perception.datasets.street import Street
from perception.inference import Prediction, StreamingSegmenter, find_drive
from perception.io import read
from perception.models import MinkUNet
from perception.pipeline import Pipeline

__all__ = ["Cost", "main", "measure", "samples"]

FEATURES = ("intensity", "height", "range", "offset")
CLASSES = 19


@dataclass(frozen=True)
class Cost:
    """One way of labelling the drive.

    Attributes:
        name: which.
        seconds: of processor time a frame.
        sites: that the network was given for it.
        kept: bytes of features that wait for the next frame.
        predictions: of the last round, scan by scan.
    """

    name: str
    seconds: float
    sites: float
    kept: int
    predictions: list[Prediction]


def samples(folder: Path | None, poses: Path | None, count: int = 6) -> list[Sample]:
    """The scans of a folder with their poses, or of a simulated street."""
    if folder is None:
        street = Street(0)
        return [street.scan(frame) for frame in range(count)]
    scans = sorted(folder.glob("*.bin"))
    drive = find_drive(scans, poses)
    if drive is None:
        raise FileNotFoundError(f"{folder}: no poses beside the scans; name them with --poses")
    return [Sample(read(scan), pose=pose) for scan, pose in zip(scans, drive.poses, strict=True)]


def network(kernel: str, dim: int, voxel_size: float, frames: int, **options: Any) -> Pipeline:
    """A pipeline with random weights."""
    torch.manual_seed(0)
    encoder = Encoder(voxel_size, FEATURES, "frame" if dim == 4 else None)
    stride = (2, 2, 2, 1)[:dim]
    shape: dict[str, Any] = {"dim": dim, "stride": stride, "kernel": kernel, **options}
    net = MinkUNet(encoder.channels, CLASSES, **shape)
    names = [f"class {number}" for number in range(CLASSES)]
    return Pipeline(net, encoder, names, np.zeros((CLASSES, 3)), frames=frames)


def measure(drive: Sequence[Sample], frames: int, rounds: int, **options: Any) -> list[Cost]:
    """The cost of every way; options are those of `network`."""
    plain = network("cube", 3, frames=frames, **options)
    causal = network("causal", 4, frames=frames, **options)
    hybrid = network("hybrid", 4, frames=frames, **options)

    def streamed(one: Pipeline, keep: Any) -> Callable[[], StreamingSegmenter]:
        return lambda: one.stream(keep=keep)

    costs = [_cost("3D", drive, frames, rounds, lambda: None, lambda _, s: plain(s.cloud))]
    for name, start in (
        ("causal, layers", streamed(causal, "layers")),
        ("causal, frames", streamed(causal, "frames")),
        ("hybrid, frames", streamed(hybrid, "frames")),
    ):
        costs.append(_cost(name, drive, frames, rounds, start, _push))
    return costs


def _push(stream: StreamingSegmenter, sample: Sample) -> Prediction:
    assert sample.pose is not None
    return stream.push(sample.cloud, sample.pose)


def _cost(
    name: str,
    drive: Sequence[Sample],
    frames: int,
    rounds: int,
    start: Callable[[], Any],
    label: Callable[[Any, Sample], Prediction],
) -> Cost:
    least = [float("inf")] * len(drive)
    predictions: list[Prediction] = []
    stream = None
    for _ in range(rounds):
        stream, predictions = start(), []
        for number, sample in enumerate(drive):
            begun = time.process_time()
            predictions.append(label(stream, sample))
            least[number] = min(least[number], time.process_time() - begun)
    full = slice(frames - 1, None)
    kept = stream.kept_bytes() if isinstance(stream, StreamingSegmenter) else 0
    sites = float(np.mean([prediction.voxels for prediction in predictions[full]]))
    return Cost(name, float(np.mean(least[full])), sites, kept, predictions)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--voxel-size", type=float, default=0.1)
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    drive = samples(options.folder, options.poses)
    shape = {"voxel_size": options.voxel_size, "depth": options.depth, "width": options.width}
    costs = measure(drive, options.frames, options.rounds, **shape)
    single = costs[0].seconds
    print("| network | ms a frame | of a 3D frame | sites | kept, MB |\n|---|---|---|---|---|")
    for cost in costs:
        print(
            f"| {cost.name} | {1e3 * cost.seconds:.0f} | {cost.seconds / single:.2f} "
            f"| {cost.sites:,.0f} | {cost.kept / 1e6:.0f} |"
        )
    causal = network("causal", 4, frames=options.frames, **shape)
    together = causal.window(drive, anchor=drive[0].pose)
    same = together.labels == costs[1].predictions[-1].labels
    print(
        f"kept layers against one run on all {len(drive)} frames: {same.sum()} of {len(same)} labels"
    )


if __name__ == "__main__":
    main()
