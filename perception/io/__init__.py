"""Point-cloud, label and model files.

>>> import numpy as np, tempfile, pathlib
>>> from perception.io import PointCloud, read, write
>>> cloud = PointCloud(np.zeros((5, 3)), {"intensity": np.linspace(0, 1, 5, dtype=np.float32)})
>>> path = pathlib.Path(tempfile.mkdtemp()) / "scan.ply"
>>> write(path, cloud)
>>> read(path)
PointCloud(5 points, intensity, frame='lidar')
"""

from perception.io.cloud import PointCloud
from perception.io.columns import normalise_intensity
from perception.io.errors import FormatError
from perception.io.files import SUFFIXES, read, write
from perception.io.labels import Labels, read_labels, write_labels

__all__ = [
    "SUFFIXES",
    "FormatError",
    "Labels",
    "PointCloud",
    "normalise_intensity",
    "read",
    "read_labels",
    "write",
    "write_labels",
]
