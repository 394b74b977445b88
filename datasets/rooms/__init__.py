"""Simulated rooms and objects: exact pictures, depth, clouds and surfaces, nothing to download.

>>> from perception.datasets.rooms import CLASSES, Room
>>> room = Room(seed=3)
>>> sample = room.scan(points=5000)
>>> "wall" in {CLASSES[i] for i in set(sample.labels.tolist())}
True
"""

from perception.datasets.rooms.classes import (
    BOX_CLASSES,
    CLASSES,
    COLORS,
    S3DIS_TO_ROOMS,
    SCANNET_TO_ROOMS,
)
from perception.datasets.rooms.layout import KINDS
from perception.datasets.rooms.objects import OBJECT_CLASSES, OBJECT_COLORS, Object, Objects
from perception.datasets.rooms.room import DEVICES, Room, Rooms, look_at
from perception.datasets.rooms.scene import Scene, Surface, View

__all__ = [
    "BOX_CLASSES",
    "CLASSES",
    "COLORS",
    "DEVICES",
    "KINDS",
    "OBJECT_CLASSES",
    "OBJECT_COLORS",
    "S3DIS_TO_ROOMS",
    "SCANNET_TO_ROOMS",
    "Object",
    "Objects",
    "Room",
    "Rooms",
    "Scene",
    "Surface",
    "View",
    "look_at",
]
