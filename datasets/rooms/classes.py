"""Classes of the simulated rooms, their colours, and the way from S3DIS and ScanNet to them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOX_CLASSES", "CLASSES", "COLORS", "S3DIS_TO_ROOMS", "SCANNET_TO_ROOMS"]

#: Class names; the position is the id.
CLASSES: Final[tuple[str, ...]] = (
    "wall",
    "floor",
    "ceiling",
    "door",
    "window",
    "table",
    "chair",
    "sofa",
    "bed",
    "bookshelf",
    "cabinet",
    "picture",
    "lamp",
    "plant",
    "clutter",
    "person",
)

#: What gets a box, in the order of the box labels.
BOX_CLASSES: Final[tuple[str, ...]] = (
    "door",
    "window",
    "table",
    "chair",
    "sofa",
    "bed",
    "bookshelf",
    "cabinet",
    "picture",
    "lamp",
    "plant",
    "person",
)

#: ``[16, 3]`` RGB of each class.
COLORS: Final[NDArray[np.uint8]] = np.array(
    [
        [174, 199, 232],
        [152, 223, 138],
        [78, 71, 183],
        [214, 39, 40],
        [197, 176, 213],
        [255, 152, 150],
        [188, 189, 34],
        [140, 86, 75],
        [255, 187, 120],
        [148, 103, 189],
        [31, 119, 180],
        [196, 156, 148],
        [255, 221, 40],
        [44, 160, 44],
        [127, 127, 127],
        [23, 190, 207],
    ],
    dtype=np.uint8,
)

#: Class name of S3DIS -> class name here; None = ignore.
S3DIS_TO_ROOMS: Final[dict[str, str | None]] = {
    "ceiling": "ceiling",
    "floor": "floor",
    "wall": "wall",
    "beam": "ceiling",
    "column": "wall",
    "window": "window",
    "door": "door",
    "table": "table",
    "chair": "chair",
    "sofa": "sofa",
    "bookcase": "bookshelf",
    "board": "picture",
    "clutter": "clutter",
    "stairs": None,
}

#: Class name of ScanNet's benchmark (20 classes) -> class name here; None = ignore.
SCANNET_TO_ROOMS: Final[dict[str, str | None]] = {
    "wall": "wall",
    "floor": "floor",
    "cabinet": "cabinet",
    "bed": "bed",
    "chair": "chair",
    "sofa": "sofa",
    "table": "table",
    "door": "door",
    "window": "window",
    "bookshelf": "bookshelf",
    "picture": "picture",
    "counter": "cabinet",
    "desk": "table",
    "curtain": "window",
    "refrigerator": "cabinet",
    "shower curtain": None,
    "toilet": None,
    "sink": None,
    "bathtub": None,
    "otherfurniture": "clutter",
}
