"""Classes of the simulated street, their colours and the way from SemanticKITTI to them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BUILDING",
    "CAR",
    "CLASSES",
    "COLORS",
    "CYCLIST",
    "FENCE",
    "PERSON",
    "POLE",
    "ROAD",
    "SEMANTIC_KITTI_TO_STREET",
    "SIDEWALK",
    "TERRAIN",
    "TRUCK",
    "TRUNK",
    "VEGETATION",
]

#: Class names; the position is the id.
CLASSES: Final[tuple[str, ...]] = (
    "road",
    "sidewalk",
    "terrain",
    "building",
    "fence",
    "vegetation",
    "trunk",
    "pole",
    "car",
    "truck",
    "person",
    "cyclist",
)

# Module-level integers, because numba freezes them into the compiled code.
ROAD: Final = 0
SIDEWALK: Final = 1
TERRAIN: Final = 2
BUILDING: Final = 3
FENCE: Final = 4
VEGETATION: Final = 5
TRUNK: Final = 6
POLE: Final = 7
CAR: Final = 8
TRUCK: Final = 9
PERSON: Final = 10
CYCLIST: Final = 11

#: ``[12, 3]`` RGB of each class.
COLORS: Final[NDArray[np.uint8]] = np.array(
    [
        [128, 64, 128],
        [244, 35, 232],
        [152, 251, 152],
        [150, 150, 155],
        [190, 153, 90],
        [16, 130, 40],
        [135, 70, 20],
        [250, 220, 0],
        [40, 80, 255],
        [0, 180, 255],
        [230, 20, 40],
        [255, 128, 0],
    ],
    dtype=np.uint8,
)

#: Raw SemanticKITTI id (low 16 bits of a ``.label`` entry) -> street id; 255 = ignore.
#: Ids and names: ``config/semantic-kitti.yaml`` of the SemanticKITTI API.
SEMANTIC_KITTI_TO_STREET: Final[dict[int, int]] = {
    0: 255,  # unlabeled
    1: 255,  # outlier
    10: CAR,
    11: CYCLIST,  # bicycle
    13: TRUCK,  # bus
    15: CYCLIST,  # motorcycle
    16: TRUCK,  # on-rails
    18: TRUCK,
    20: TRUCK,  # other-vehicle
    30: PERSON,
    31: CYCLIST,  # bicyclist
    32: CYCLIST,  # motorcyclist
    40: ROAD,
    44: ROAD,  # parking
    48: SIDEWALK,
    49: 255,  # other-ground
    50: BUILDING,
    51: FENCE,
    52: 255,  # other-structure
    60: ROAD,  # lane-marking
    70: VEGETATION,
    71: TRUNK,
    72: TERRAIN,
    80: POLE,
    81: POLE,  # traffic-sign
    99: 255,  # other-object
    252: CAR,  # moving-car
    253: CYCLIST,  # moving-bicyclist
    254: PERSON,  # moving-person
    255: CYCLIST,  # moving-motorcyclist
    256: TRUCK,  # moving-on-rails
    257: TRUCK,  # moving-bus
    258: TRUCK,  # moving-truck
    259: TRUCK,  # moving-other-vehicle
}
