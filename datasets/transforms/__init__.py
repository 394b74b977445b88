"""Random changes of training samples, that a real sample could show as well.

A transform is a small frozen dataclass: ``transform(sample, rng) -> Sample``. Everything that a sample
knows changes together: points, labels, instances, boxes, velocities, flow, pose and cameras.

>>> import numpy as np
>>> from perception.datasets.sample import Sample
>>> from perception.io import PointCloud
>>> augment = Compose([Flip(y=1.0), Scale((2.0, 2.0))])
>>> moved = augment(Sample(PointCloud(np.array([[1, 2, 3]]))), np.random.default_rng(0))
>>> moved.cloud.points.tolist()
[[2.0, -4.0, 6.0]]
"""

from perception.datasets.transforms.base import Compose, Geometric, Mix, Transform
from perception.datasets.transforms.geometric import (
    Center,
    Elastic,
    Flip,
    Jitter,
    Rotate,
    Scale,
    Translate,
)
from perception.datasets.transforms.mix import LaserMix, Mix3D, PolarMix
from perception.datasets.transforms.objects import ObjectNoise
from perception.datasets.transforms.paste import ObjectBank, Paste
from perception.datasets.transforms.points import (
    Crop,
    CropNearest,
    DropFrustum,
    DropPoints,
    DropSparseBoxes,
    Forget,
)
from perception.datasets.transforms.rows import joined, select
from perception.datasets.transforms.similarity import Similarity, move
from perception.datasets.transforms.values import Color, Intensity

__all__ = [
    "Center",
    "Color",
    "Compose",
    "Crop",
    "CropNearest",
    "DropFrustum",
    "DropPoints",
    "DropSparseBoxes",
    "Elastic",
    "Flip",
    "Forget",
    "Geometric",
    "Intensity",
    "Jitter",
    "LaserMix",
    "Mix",
    "Mix3D",
    "ObjectBank",
    "ObjectNoise",
    "Paste",
    "PolarMix",
    "Rotate",
    "Scale",
    "Similarity",
    "Transform",
    "Translate",
    "joined",
    "move",
    "select",
]
