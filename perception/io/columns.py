"""From the columns of a file to a :class:`PointCloud`: names, units, rows, origin.

Every reader ends here, so that one rule holds for all formats.

Names
    Compared without case and without CloudCompare's prefixes ``scalar_`` and ``//``; see
    ``SYNONYMS``. PCL's packed ``rgb``/``rgba`` is split. Unknown columns keep their name.
Intensity
    :func:`normalise_intensity`: divided by the full scale of the sensor, which is the smallest
    of 1 (floats only), 255, 4095 and 65535 that holds all values.
Colours
    uint8; 16-bit colours lose the low byte, floats in 0..1 are scaled by 255.
Rows
    A point with a coordinate that is not finite is dropped, with a warning and with
    ``PointCloud.valid``, so that labels can still be written row by row.
Origin
    Coordinates beyond ``FAR`` are geo-referenced: their median, in whole metres, becomes
    ``PointCloud.origin``. Coordinates beyond ``ABSURD`` from the median are no metres.
"""

from __future__ import annotations

import warnings
from os import PathLike

import numpy as np

from perception.io.cloud import PointCloud
from perception.io.errors import FormatError

# float32 resolves 1 mm up to 8.4 km; no LiDAR sees that far, so sensor frames keep their zero.
FAR = 10_000.0
# Farther apart than the Earth is wide: the file is no point cloud in metres.
ABSURD = 2e7

SYNONYMS = {
    "i": "intensity",
    "reflectance": "intensity",
    "reflectivity": "intensity",
    "remission": "intensity",
    "r": "red",
    "g": "green",
    "b": "blue",
    "diffuse_red": "red",
    "diffuse_green": "green",
    "diffuse_blue": "blue",
    "class": "label",
    "classification": "label",
    "semantic": "label",
    "labels": "label",
    "laser": "ring",
    "laser_id": "ring",
    "ring_index": "ring",
    "t": "time",
    "timestamp": "time",
    "gps_time": "time",
}


def normalise_intensity(values: np.ndarray, full_scale: float | None = None) -> np.ndarray:
    """Intensities in 0..1 of any sensor's intensities.

    The full scale is the smallest of 1 (floats only), 255, 4095 and 65535 that holds every value
    (8, 12 and 16 bits); for larger values it is the largest of them. What is negative or not a
    number becomes 0.

    Args:
        values: ``[N]`` numbers.
        full_scale: the value that becomes 1, where the format states it.

    Returns:
        ``[N]`` float32 in 0..1.
    """
    numbers = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if full_scale is None:
        top = float(numbers.max(initial=0.0))
        floats = np.asarray(values).dtype.kind == "f"
        scales = [1.0, 255.0, 4095.0, 65535.0] if floats else [255.0, 4095.0, 65535.0]
        full_scale = next((scale for scale in scales if top <= scale), top)
    return np.clip(numbers / full_scale, 0.0, 1.0).astype(np.float32)


def colour_bytes(values: np.ndarray, top: float) -> np.ndarray:
    """Colours as uint8; `top` is the largest value of the three channels."""
    numbers = np.nan_to_num(np.asarray(values, dtype=np.float64))
    if values.dtype.kind == "f" and top <= 1.0:
        numbers = np.round(numbers * 255.0)
    elif top > 255.0:
        numbers = numbers / 256.0
    return np.clip(numbers, 0, 255).astype(np.uint8)


def canonical_name(name: str) -> str:
    """The attribute name of a file's column name."""
    plain = name.strip().lower().removeprefix("//").strip().removeprefix("scalar_")
    plain = plain.strip(" \"'").replace(" ", "_")
    return SYNONYMS.get(plain, plain)


def canonical_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns under attribute names, colours and intensity in their units.

    Of two columns with one canonical name the one that carries it in the file wins; the other
    keeps its own name.
    """
    named: dict[str, np.ndarray] = {}
    for name in sorted(columns, key=lambda name: canonical_name(name) != name.strip().lower()):
        plain = canonical_name(name)
        named[name if plain in named else plain] = columns[name]
    for packed in ("rgb", "rgba"):
        values = named.get(packed)
        if values is None or values.ndim != 1 or values.dtype.itemsize != 4:
            continue
        bits = np.ascontiguousarray(named.pop(packed)).view(np.uint32)
        for shift, channel in ((16, "red"), (8, "green"), (0, "blue")):
            named.setdefault(channel, ((bits >> shift) & 255).astype(np.uint8))
    channels = [name for name in ("red", "green", "blue") if name in named]
    if channels:
        top = max(float(np.nan_to_num(named[name]).max(initial=0)) for name in channels)
        for name in channels:
            named[name] = colour_bytes(named[name], top)
    if "intensity" in named and named["intensity"].ndim == 1:
        named["intensity"] = normalise_intensity(named["intensity"])
    return named


def cloud_from_columns(
    path: str | PathLike[str], columns: dict[str, np.ndarray], *, frame: str = "lidar"
) -> PointCloud:
    """A cloud from a file's named columns ``[N]``; x, y and z must be among them.

    Raises:
        FormatError: x, y or z is missing, there is no point, or they are no metres.
    """
    named = canonical_columns(columns)
    missing = [axis for axis in "xyz" if axis not in named or named[axis].ndim != 1]
    if missing:
        raise FormatError(
            path,
            f"has no column {', '.join(missing)} (columns: {', '.join(columns) or 'none'})",
            "rename the coordinate columns to x, y, z",
        )
    xyz = np.stack([named.pop(axis) for axis in "xyz"], axis=1)
    return make_cloud(path, xyz, named, frame=frame)


def far_origin(xyz: np.ndarray) -> np.ndarray:
    """What float32 needs taken off finite coordinates ``[N, 3]``: their median in whole metres where
    any is beyond ``FAR``, else zeros; ``[3]`` float64."""
    if len(xyz) == 0 or np.abs(xyz).max() <= FAR:
        return np.zeros(3)
    return np.round(np.median(xyz.astype(np.float64), axis=0))


def make_cloud(
    path: str | PathLike[str],
    xyz: np.ndarray,
    attributes: dict[str, np.ndarray],
    *,
    frame: str = "lidar",
    origin: np.ndarray | None = None,
    time: float | None = None,
) -> PointCloud:
    """A cloud from coordinates ``[N, 3]`` and attributes in their units.

    Args:
        origin: ``[3]`` float64 where the file states it and `xyz` is relative to it; None finds
            one and subtracts it.

    Raises:
        FormatError: there is no point, none is finite, or they are no metres.
    """
    if len(xyz) == 0:
        raise FormatError(path, "holds no points", "check how the file was written")
    if xyz.dtype.kind not in "fiu":
        raise FormatError(path, f"has coordinates of type {xyz.dtype}", "store them as numbers")
    valid: np.ndarray | None = np.isfinite(xyz).all(axis=1)
    if valid is not None and valid.all():
        valid = None
    elif valid is not None:
        if not valid.any():
            raise FormatError(path, "no point has finite coordinates", "check how it was written")
        warnings.warn(
            f"{path}: dropped {int((~valid).sum())} of {len(valid)} points that are not finite",
            stacklevel=2,
        )
        xyz = xyz[valid]
        attributes = {name: values[valid] for name, values in attributes.items()}
    if origin is None:
        origin = far_origin(xyz)
        frame = "world" if origin.any() else frame
        local = xyz.astype(np.float64) - origin if origin.any() else xyz
    else:
        local = xyz
    reach = float(np.abs(local).max())
    if reach > ABSURD:
        raise FormatError(
            path,
            f"has coordinates up to {reach:.3g} m, which are no metres",
            "check the file's layout and units",
        )
    return PointCloud(
        local.astype(np.float32), attributes, frame=frame, time=time, origin=origin, valid=valid
    )
