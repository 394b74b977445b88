"""What turned copies and half precision change on a labelled scan: the tables of docs/inference.md.

    python -m perception.tools.bench.applied SCAN.bin SCAN.label [--model street-minkunet]

The labels are SemanticKITTI's, the model is one of the street. Time is the process's processor time of one
thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from perception import load
from perception.datasets.sample import IGNORE
from perception.datasets.street import SEMANTIC_KITTI_TO_STREET
from perception.inference.runner import PRECISIONS
from perception.io import read, read_labels
from perception.metrics import label_iou

__all__ = ["main"]

COPIES = (1, 2, 4, 8, 16)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--model", default="street-minkunet")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    cloud, raw = read(options.scan), read_labels(options.labels).semantic
    table = np.full(int(raw.max()) + 1, IGNORE, np.uint8)
    for number, street in SEMANTIC_KITTI_TO_STREET.items():
        if number < len(table):
            table[number] = street
    labels = table[raw]
    known = labels != IGNORE

    print("| precision | copies | mean IoU, % | points right, % | as float32, % | s |")
    print("|---|---|---|---|---|---|")
    plain = load(options.model, options.device)
    plain(cloud)  # compiles, or loads what was compiled
    expected = plain(cloud).labels
    for precision in PRECISIONS:
        pipeline = load(options.model, options.device, precision=precision)  # type: ignore[arg-type]
        for copies in COPIES if precision == "float32" else (1,):
            start = time.process_time()
            result = pipeline(cloud, augment=copies)
            took = time.process_time() - start
            iou = 100 * float(label_iou(result.labels, labels, len(pipeline.names)).mean)
            right = 100 * float((result.labels == labels)[known].mean())
            same = 100 * float((result.labels == expected).mean())
            print(f"| {precision} | {copies} | {iou:.1f} | {right:.1f} | {same:.2f} | {took:.2f} |")


if __name__ == "__main__":
    main()
