"""Perception on sparse voxels in 3D and 4D, on its own engine for generalized sparse convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ENGINE = ("SparseTensor", "Voxels", "batch", "cat", "devoxelize", "union", "voxelize")
_ROOMS = ("cli", "geometry", "inference", "io", "metrics", "models", "nn", "sparse", "tasks", "viz")

if TYPE_CHECKING:
    from perception import geometry, io, models, nn, sparse, viz
    from perception.pipeline import Pipeline, Prediction, load
    from perception.sparse import SparseTensor, Voxels, batch, cat, devoxelize, union, voxelize

__all__ = [
    "Pipeline",
    "Prediction",
    "SparseTensor",
    "Voxels",
    "batch",
    "cat",
    "devoxelize",
    "geometry",
    "io",
    "load",
    "models",
    "nn",
    "sparse",
    "union",
    "viz",
    "voxelize",
]


def __getattr__(name: str) -> Any:
    # Importing torch takes a second; `perception --help` and the file readers do without.
    from importlib import import_module

    if name in _ENGINE:
        return getattr(import_module("perception.sparse"), name)
    if name in ("Pipeline", "Prediction", "load"):
        return getattr(import_module("perception.pipeline"), name)
    if name in _ROOMS:
        return import_module(f"perception.{name}")
    raise AttributeError(f"module 'perception' has no attribute {name!r}")
