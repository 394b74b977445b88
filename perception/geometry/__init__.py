"""Geometry that every other room shares: boxes, later poses, cameras and overlaps."""

from perception.geometry.boxes import Boxes3D

__all__ = ["Boxes3D"]
