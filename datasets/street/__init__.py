"""A simulated street: endless annotated scans and pictures, nothing to download.

>>> from perception.datasets.street import CLASSES, scan
>>> sample = scan(seed=0)
>>> sorted({CLASSES[i] for i in set(sample.labels.tolist())})[:2]
['building', 'car']
"""

from perception.datasets.street.camera import Lens, Picture
from perception.datasets.street.classes import CLASSES, COLORS, SEMANTIC_KITTI_TO_STREET
from perception.datasets.street.rig import RIGS, Rig
from perception.datasets.street.scan import RATE, Street, scan
from perception.datasets.street.sensor import Lidar, Sensor, SolidState
from perception.datasets.street.statistics import REAL_SCANS, voxel_statistics
from perception.datasets.street.weather import CLEAR, Weather

__all__ = [
    "CLASSES",
    "CLEAR",
    "COLORS",
    "RATE",
    "REAL_SCANS",
    "RIGS",
    "SEMANTIC_KITTI_TO_STREET",
    "Lens",
    "Lidar",
    "Picture",
    "Rig",
    "Sensor",
    "SolidState",
    "Street",
    "Weather",
    "scan",
    "voxel_statistics",
]
