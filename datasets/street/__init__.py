"""A simulated street with a 64-beam LiDAR: endless annotated scans, nothing to download.

>>> from perception.datasets.street import CLASSES, scan
>>> sample = scan(seed=0)
>>> sorted({CLASSES[i] for i in set(sample.labels.tolist())})[:2]
['building', 'car']
"""

from perception.datasets.street.classes import CLASSES, COLORS, SEMANTIC_KITTI_TO_STREET
from perception.datasets.street.scan import RATE, Street, scan
from perception.datasets.street.sensor import Sensor
from perception.datasets.street.statistics import REAL_SCANS, voxel_statistics

__all__ = [
    "CLASSES",
    "COLORS",
    "RATE",
    "REAL_SCANS",
    "SEMANTIC_KITTI_TO_STREET",
    "Sensor",
    "Street",
    "scan",
    "voxel_statistics",
]
