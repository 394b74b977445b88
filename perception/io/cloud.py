"""The point cloud: what a file becomes and what every later room takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in metres with one value or vector per point for every attribute.

    Invariants, checked when the cloud is made: ``points`` is C-contiguous float32 ``[N, 3]`` and
    finite, every attribute has N rows, ``origin`` is float64 ``[3]``, ``valid`` (where given)
    marks exactly N rows. Arrays of other dtypes are converted.

    Attributes:
        points: ``[N, 3]`` float32, metres; in the LiDAR frame x forward, y left, z up.
        attributes: name to array ``[N]`` or ``[N, k]``. Known names: ``intensity`` (float32,
            0..1), ``ring`` (laser number), ``time`` (seconds), ``red``, ``green``, ``blue``
            (uint8), ``label``; a reader keeps the others under the name the file gives them.
        frame: the frame of the points: ``"lidar"`` (sensor at zero) or ``"world"``.
        time: the time of the scan in seconds, where known.
        origin: ``[3]`` float64, metres. What was subtracted from the file's coordinates so that
            float32 keeps millimetres in geo-referenced clouds: ``file = points + origin``. Zero
            for everything within 10 km of its own zero. Written back by the writers.
        valid: ``[R]`` bool, the rows of the file that became points, in order, where the reader
            dropped rows that are not finite; None if every row is a point.
    """

    points: np.ndarray
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    frame: str = "lidar"
    time: float | None = None
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    valid: np.ndarray | None = None

    def __post_init__(self) -> None:
        points = np.ascontiguousarray(self.points, dtype=np.float32)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(
                f"PointCloud: points has shape {list(points.shape)}, expected [N, 3]; "
                "PointCloud.from_array takes more columns"
            )
        if not np.isfinite(points).all():
            count = int((~np.isfinite(points).all(axis=1)).sum())
            raise ValueError(
                f"PointCloud: {count} of {len(points)} points are not finite; drop them first, "
                "e.g. points[np.isfinite(points).all(axis=1)]"
            )
        attributes = {name: np.asarray(values) for name, values in self.attributes.items()}
        for name, values in attributes.items():
            if values.ndim not in (1, 2) or len(values) != len(points):
                raise ValueError(
                    f"PointCloud: attribute {name!r} has shape {list(values.shape)} for "
                    f"{len(points)} points; expected [{len(points)}] or [{len(points)}, k]"
                )
        origin = np.array(self.origin, dtype=np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise ValueError(f"PointCloud: origin is {self.origin!r}, expected 3 finite numbers")
        valid = None if self.valid is None else np.asarray(self.valid, dtype=bool)
        if valid is not None and (valid.ndim != 1 or int(valid.sum()) != len(points)):
            raise ValueError(
                f"PointCloud: valid marks {int(valid.sum())} rows for {len(points)} points"
            )
        set_field = object.__setattr__
        set_field(self, "points", points)
        set_field(self, "attributes", attributes)
        set_field(self, "origin", origin)
        set_field(self, "valid", valid)

    @classmethod
    def from_array(cls, array: ArrayLike, **fields: Any) -> PointCloud:
        """A cloud from an array ``[N, 3+]``: x, y, z and, as the fourth column, intensity.

        The intensity is brought to 0..1 by :func:`perception.io.normalise_intensity`; a fifth
        column is kept as attribute ``ring``; further columns are ``column5``, ``column6``, …
        Coordinates beyond 10 km are moved to an ``origin`` of their own, as the readers do.

        Args:
            array: anything numpy makes numbers of, torch tensors on the CPU included.
            fields: further fields of the cloud (``frame=``, ``time=``, ``origin=``).

        Raises:
            ValueError: the shape is not ``[N, 3+]``, or the values are no finite numbers.
        """
        from perception.io.columns import far_origin, normalise_intensity

        values = np.asarray(array)
        if values.ndim != 2 or values.shape[1] < 3 or values.dtype.kind not in "fiu":
            raise ValueError(
                f"PointCloud.from_array: array has shape {list(values.shape)} and dtype "
                f"{values.dtype}, expected numbers [N, 3+]: x, y, z[, intensity[, ring]]"
            )
        attributes: dict[str, np.ndarray] = {}
        if values.shape[1] > 3:
            attributes["intensity"] = normalise_intensity(values[:, 3])
        for column in range(4, values.shape[1]):
            attributes["ring" if column == 4 else f"column{column}"] = values[:, column].copy()
        xyz = values[:, :3]
        if "origin" not in fields and np.isfinite(xyz).all():
            origin = far_origin(xyz)
            if origin.any():
                xyz = xyz.astype(np.float64) - origin
                fields = {"frame": "world", **fields, "origin": origin}
        return cls(xyz.astype(np.float32), attributes, **fields)

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[np.ndarray]:
        raise TypeError("PointCloud is not iterable; iterate over cloud.points")

    def __getitem__(self, index: Any) -> PointCloud:
        """The points that a mask, slice or index array selects, with their attributes.

        The rows are no longer those of a file, so ``valid`` of the result is None.
        """
        points = self.points[index]
        if points.ndim != 2:
            raise TypeError("PointCloud: index with a slice, a mask or an index array")
        attributes = {name: values[index] for name, values in self.attributes.items()}
        return self.replace(points=points, attributes=attributes, valid=None)

    def __repr__(self) -> str:
        names = ", ".join(self.attributes) or "no attributes"
        origin = f", origin={self.origin.tolist()}" if self.origin.any() else ""
        return f"PointCloud({len(self)} points, {names}, frame={self.frame!r}{origin})"

    def replace(self, **fields: Any) -> PointCloud:
        """A cloud with some fields replaced; the others are shared."""
        return dataclasses.replace(self, **fields)

    def with_attributes(self, attributes: Mapping[str, ArrayLike]) -> PointCloud:
        """A cloud with some attributes added or replaced; the others are shared."""
        added = {name: np.asarray(values) for name, values in attributes.items()}
        return self.replace(attributes={**self.attributes, **added})

    def world(self) -> np.ndarray:
        """The coordinates of the file: ``points + origin``, ``[N, 3]`` float64, metres."""
        return self.points.astype(np.float64) + self.origin

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest coordinate per axis, two ``[3]`` float32; an error when empty."""
        if len(self) == 0:
            raise ValueError("PointCloud: an empty cloud has no bounds")
        return self.points.min(axis=0), self.points.max(axis=0)
