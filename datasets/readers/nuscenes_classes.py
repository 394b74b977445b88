"""Names, mappings and splits of nuScenes, as in the nuScenes devkit 1.2.

Sources, all in https://github.com/nutonomy/nuscenes-devkit: ``eval/detection/utils.py`` (detection
classes), ``eval/lidarseg/utils.py`` (lidarseg classes and colours), ``utils/splits.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CATEGORY_TO_DETECTION",
    "CATEGORY_TO_LIDARSEG",
    "DETECTION_CLASSES",
    "LIDARSEG_CLASSES",
    "LIDARSEG_COLORS",
    "split_scenes",
]

#: The ten classes of the detection task; the position is the box label.
DETECTION_CLASSES = (
    "car",
    "truck",
    "bus",
    "trailer",
    "construction_vehicle",
    "pedestrian",
    "motorcycle",
    "bicycle",
    "traffic_cone",
    "barrier",
)

#: Category -> detection class; categories that are not here have none.
CATEGORY_TO_DETECTION = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}

#: The 16 classes of the lidarseg task; the position is the point label.
LIDARSEG_CLASSES = (
    "barrier",
    "bicycle",
    "bus",
    "car",
    "construction_vehicle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "trailer",
    "truck",
    "driveable_surface",
    "other_flat",
    "sidewalk",
    "terrain",
    "manmade",
    "vegetation",
)

#: ``[16, 3]`` RGB.
LIDARSEG_COLORS: NDArray[np.uint8] = np.array(
    [
        [112, 128, 144],
        [220, 20, 60],
        [255, 127, 80],
        [255, 158, 0],
        [233, 150, 70],
        [255, 61, 99],
        [0, 0, 230],
        [47, 79, 79],
        [255, 140, 0],
        [255, 99, 71],
        [0, 207, 191],
        [175, 0, 75],
        [75, 0, 75],
        [112, 180, 60],
        [222, 184, 135],
        [0, 175, 0],
    ],
    dtype=np.uint8,
)

#: Category of lidarseg -> class; the others (noise, animals, debris, the car itself, …) are ignored.
CATEGORY_TO_LIDARSEG = {
    **CATEGORY_TO_DETECTION,
    "flat.driveable_surface": "driveable_surface",
    "flat.sidewalk": "sidewalk",
    "flat.terrain": "terrain",
    "flat.other": "other_flat",
    "static.manmade": "manmade",
    "static.vegetation": "vegetation",
}

# Scene numbers, "4-11" with both ends. The mini version has splits of its own.
_SPLITS = {
    "train": (
        "1-2 4-11 19-34 41-76 120-135 138-139 149-152 154-155 157-168 170-185 187-188 190-196 "
        "199-200 202-204 206-214 218-220 222 224-264 283-306 315-318 321 323-324 328 347-386 "
        "388-403 405-408 410-459 461-465 467-469 471-472 474-480 499-502 504-515 517-518 525-539 "
        "541-546 566 568 570-578 580 582-600 639-679 681 683-689 695-698 700-701 703-719 726-728 "
        "730-731 733-741 744 746-747 749-752 757-765 767-769 786-787 789-792 803-806 808-813 "
        "815-817 819-822 847-856 858 860-866 868-873 875-878 880 882-903 945 947 949 952-953 "
        "955-961 975-984 988-992 994-1025 1044-1058 1074-1102 1104-1110"
    ),
    "val": (
        "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 "
        "632-638 770-771 775 777-778 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972 "
        "1059-1073"
    ),
    "test": (
        "77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604 "
        "606-624 827-831 833-842 844-846 932-933 935-943 1026-1043"
    ),
    "mini_train": "61 553 655 757 796 1077 1094 1100",
    "mini_val": "103 916",
}


def split_scenes(split: str) -> frozenset[str]:
    """Names of the scenes of ``train``, ``val``, ``test``, ``mini_train`` or ``mini_val``."""
    names = []
    for part in _SPLITS[split].split():
        first, _, last = part.partition("-")
        names += [f"scene-{number:04d}" for number in range(int(first), int(last or first) + 1)]
    return frozenset(names)
