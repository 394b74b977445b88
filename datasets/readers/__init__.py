"""Readers of public data sets as people have them on disk: no preparation, no pickles.

Every reader is a :class:`~perception.datasets.sample.Scans`: samples by number, frames of one drive
one after the other. A reader is imported when its name is used.

>>> from perception.datasets.readers import SemanticKitti
>>> SemanticKitti.classes[:3]
('car', 'bicycle', 'motorcycle')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.datasets.readers.argoverse2 import Argoverse2
    from perception.datasets.readers.custom import Custom
    from perception.datasets.readers.kitti_object import KittiObject
    from perception.datasets.readers.kitti_odometry import KittiOdometry
    from perception.datasets.readers.nuscenes import NuScenes
    from perception.datasets.readers.s3dis import S3DIS
    from perception.datasets.readers.scannet import ScanNet
    from perception.datasets.readers.semantic_kitti import SemanticKitti

__all__ = [
    "S3DIS",
    "Argoverse2",
    "Custom",
    "KittiObject",
    "KittiOdometry",
    "NuScenes",
    "ScanNet",
    "SemanticKitti",
]

_MODULES = {
    "Argoverse2": "argoverse2",
    "Custom": "custom",
    "KittiObject": "kitti_object",
    "KittiOdometry": "kitti_odometry",
    "NuScenes": "nuscenes",
    "S3DIS": "s3dis",
    "ScanNet": "scannet",
    "SemanticKitti": "semantic_kitti",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
