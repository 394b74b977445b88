"""Geometry that every other room shares: boxes, poses and cameras."""

from perception.geometry.boxes import Boxes3D
from perception.geometry.cameras import Camera
from perception.geometry.poses import as_pose, interpolate, invert, transform

__all__ = ["Boxes3D", "Camera", "as_pose", "interpolate", "invert", "transform"]
