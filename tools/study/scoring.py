"""What trained networks are worth: IoU of points at every level of noise, and milliseconds a frame."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perception.datasets.street import CLASSES
from perception.metrics import SegmentationIoU
from perception.sparse import SparseTensor
from perception.tools.study.batch import Batch, evaluation_batch
from perception.tools.study.methods import METHODS, ROWS, averaged, network, scores
from perception.tools.study.noise import LEVELS, TABLE, Level
from perception.tools.study.windows import Windows

__all__ = ["milliseconds", "score"]


@torch.no_grad()
def score(
    method: str, net: nn.Module, data: Windows, levels: Sequence[Level] = LEVELS
) -> dict[str, list[dict[str, Any]]]:
    """IoU in percent of every row of the table that a trained network gives.

    Returns:
        by the row's key: a dictionary a level with `miou` and `classes` (12 numbers, None where a class
        does not occur) of the points of the newest frames, and `all_frames`, the mean IoU of all.
    """
    net.eval()
    device = data.points.device
    rows = {key: row for key, row in ROWS.items() if row.method == method}
    results: dict[str, list[dict[str, Any]]] = {key: [] for key in rows}
    for level in levels:
        counts = {
            (key, part): SegmentationIoU(len(CLASSES)).to(device)
            for key in rows
            for part in ("newest", "all")
        }
        for number in range(len(data)):
            batch = evaluation_batch(data, number, level)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                predicted = scores(method, net, batch)
            newest = batch.newest[batch.point_to_voxel]
            for key, row in rows.items():
                labels = _labels(predicted, batch, row.radius)[batch.point_to_voxel]
                counts[key, "all"].update(labels, batch.point_labels)
                counts[key, "newest"].update(labels[newest], batch.point_labels[newest])
        for key in rows:
            result = counts[key, "newest"].result()
            results[key].append(
                {
                    "miou": 100.0 * float(result.mean),
                    "classes": [
                        None if value != value else 100.0 * value
                        for value in result.per_class.tolist()
                    ],
                    "all_frames": 100.0 * float(counts[key, "all"].result().mean),
                }
            )
    return results


def _labels(predicted: Tensor, batch: Batch, radius: int | None) -> Tensor:
    if radius is None:
        return predicted.argmax(1)
    return averaged(predicted.softmax(1), batch.in_time, radius).argmax(1)


@torch.no_grad()
def milliseconds(
    data: Windows,
    methods: Sequence[str],
    widths: tuple[int, ...],
    *,
    repeats: int = 40,
    level: Level = LEVELS[TABLE],
) -> dict[str, float]:
    """Median time of labelling one new frame, by the row's key.

    From sites and features on the device to labels on the device, maps built anew, nothing kept from
    the window before but what averaging needs: the scores of the older frames. 4D networks
    therefore compute their whole window for every new frame. Every run is the second on its window:
    the first finds memory for tensors of that size.
    """
    device = data.points.device
    nets = {method: network(method, widths).to(device).eval() for method in methods}
    rows = {key: row for key, row in ROWS.items() if row.method in nets}
    batches = [
        evaluation_batch(data, number, level) for number in range(min(len(data), max(repeats, 2)))
    ]
    times: dict[str, list[float]] = {key: [] for key in rows}
    for turn in range(repeats + 3):
        batch = batches[turn % len(batches)]
        kept = torch.rand(len(batch.coords), len(CLASSES), device=device)
        for key, row in rows.items():
            net = nets[row.method]
            run = _spatial(net, batch, kept, row.radius) if METHODS[row.method].dim == 3 else None
            run = run or _temporal(net, batch)
            _timed(run, device)
            seconds = _timed(run, device)
            if turn >= 3:
                times[key].append(1e3 * seconds)
    return {key: statistics.median(values) for key, values in times.items()}


def _spatial(net: nn.Module, batch: Batch, kept: Tensor, radius: int | None) -> Callable[[], Any]:
    def run() -> Tensor:
        own = net(_anew(batch.newest_scan())).features.float()
        if radius is None:
            return own.argmax(1)
        probabilities = kept.clone()
        probabilities[batch.newest] = own.softmax(1)
        return averaged(probabilities, _anew(batch.in_time), radius, batch.newest).argmax(1)

    return run


def _temporal(net: nn.Module, batch: Batch) -> Callable[[], Any]:
    return lambda: net(_anew(batch.in_time)).features.argmax(1)


def _anew(x: SparseTensor) -> SparseTensor:
    """The same tensor without the plans that were made for it."""
    return SparseTensor(x.features, x.coords.clone(), batch_size=x.batch_size)


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
