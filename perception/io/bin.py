"""Headerless ``.bin`` scans: KITTI, SemanticKITTI, nuScenes and kin.

A ``.bin`` file says nothing about itself, so the layout is either stated or recognised.

Layouts (little endian, one record per point):

========================  ================================================  ===============
``layout``                columns                                           bytes per point
========================  ================================================  ===============
``kitti``                 float32 x, y, z, intensity                        16
``nuscenes``              float32 x, y, z, intensity 0..255, ring           20
``nuscenes-fp16``         float16 x, y, z, intensity 0..255, time (s)       10
``xyz``                   float32 x, y, z                                   12
``xyzrgb``                float32 x, y, z, red, green, blue 0..255          24
========================  ================================================  ===============

The rule of recognition: of the first three layouts those stay whose record size divides the
file's and of whose points at least 99 % are plausible: coordinates within 1 km of the sensor;
intensity in 0..255; for ``nuscenes`` the ring a whole number in 0..255; for ``nuscenes-fp16`` the
time in 0..10 s. If exactly one stays, it is taken; otherwise the reader asks for ``layout=``. A
name ending in ``.pcd.bin`` leaves only the two nuScenes layouts. ``xyz`` and ``xyzrgb`` are never
guessed. Intensity becomes 0..1: KITTI's is, unless a value exceeds 1 (then as in
:func:`~perception.io.columns.normalise_intensity`); nuScenes' is divided by 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.io.cloud import PointCloud
from perception.io.columns import colour_bytes, make_cloud, normalise_intensity
from perception.io.errors import FormatError

SENSOR_REACH = 1000.0  # metres; the longest-range automotive LiDARs see a third of it.
LONGEST_SWEEP = 10.0  # seconds between the first and last sweep gathered in one file.


@dataclass(frozen=True)
class Layout:
    """A record of `columns` numbers of type `dtype` per point."""

    dtype: str
    columns: tuple[str, ...]
    guessed: bool = True

    @property
    def record(self) -> int:
        return np.dtype(self.dtype).itemsize * len(self.columns)


LAYOUTS = {
    "kitti": Layout("<f4", ("x", "y", "z", "intensity")),
    "nuscenes": Layout("<f4", ("x", "y", "z", "intensity", "ring")),
    "nuscenes-fp16": Layout("<f2", ("x", "y", "z", "intensity", "time")),
    "xyz": Layout("<f4", ("x", "y", "z"), guessed=False),
    "xyzrgb": Layout("<f4", ("x", "y", "z", "red", "green", "blue"), guessed=False),
}
STATE_LAYOUT = f"state it: layout={'|'.join(LAYOUTS)}"


def _records(data: bytes, layout: Layout) -> np.ndarray:
    return np.frombuffer(data, dtype=layout.dtype).reshape(-1, len(layout.columns))


def _plausible(rows: np.ndarray, layout: Layout) -> bool:
    """Whether 99 % of the rows that are numbers look like points of this layout."""
    finite = np.isfinite(rows).all(axis=1)
    if finite.mean() < 0.5:
        return False
    rows = rows[finite]
    good = (np.abs(rows[:, :3]) <= SENSOR_REACH).all(axis=1)
    good &= (rows[:, 3] >= 0) & (rows[:, 3] <= 255)
    # Reading floats at a wrong offset or width gives denormals, which no sensor measures.
    tiny = np.abs(rows[:, :3])
    good &= ~((tiny > 0) & (tiny < 1e-7)).any(axis=1)
    if "ring" in layout.columns:
        good &= (rows[:, 4] == np.floor(rows[:, 4])) & (rows[:, 4] >= 0) & (rows[:, 4] <= 255)
    if "time" in layout.columns:
        good &= (rows[:, 4] >= 0) & (rows[:, 4] <= LONGEST_SWEEP)
    return float(good.mean()) >= 0.99


def recognise(path: Path, data: bytes) -> str:
    """The layout of a ``.bin`` file's bytes by the rule above.

    Raises:
        FormatError: no layout fits, or more than one does.
    """
    sweep = path.name.lower().endswith(".pcd.bin")
    names = [n for n, layout in LAYOUTS.items() if layout.guessed and (not sweep or n != "kitti")]
    whole = [name for name in names if len(data) % LAYOUTS[name].record == 0]
    if not whole:
        kinds = ", ".join(f"{LAYOUTS[name].record} ({name})" for name in names)
        raise FormatError(
            path,
            f"is {len(data)} bytes long, no multiple of {kinds}",
            f"the file is truncated or of another layout; copy it again or {STATE_LAYOUT}",
        )
    fits = [name for name in whole if _plausible(_records(data, LAYOUTS[name]), LAYOUTS[name])]
    if len(fits) == 1:
        return fits[0]
    if not fits:
        raise FormatError(
            path,
            f"does not look like points of layout {' or '.join(whole)}",
            f"the file is damaged, no point cloud, or of another layout; if so {STATE_LAYOUT}",
        )
    raise FormatError(path, f"is ambiguous: it fits layouts {' and '.join(fits)}", STATE_LAYOUT)


def read_bin(path: Path, layout: str | None = None) -> PointCloud:
    """Read a ``.bin`` scan; see the module for layouts and their recognition."""
    data = path.read_bytes()
    if not data:
        raise FormatError(path, "is empty", "copy or record it again")
    name = recognise(path, data) if layout is None else layout
    if name not in LAYOUTS:
        raise FormatError(path, f"layout {name!r} is unknown", STATE_LAYOUT)
    record = LAYOUTS[name].record
    if len(data) % record:
        raise FormatError(
            path,
            f"is {len(data)} bytes long, no multiple of the {record} bytes of layout {name}",
            "the file is truncated, or state another layout",
        )
    rows = _records(data, LAYOUTS[name])
    attributes: dict[str, np.ndarray] = {}
    for column, attribute in enumerate(LAYOUTS[name].columns[3:], start=3):
        values = rows[:, column]
        if attribute == "intensity":
            attributes[attribute] = normalise_intensity(values, None if name == "kitti" else 255.0)
        elif attribute == "ring":
            attributes[attribute] = np.clip(np.nan_to_num(values), 0, 65535).astype(np.uint16)
        elif attribute == "time":
            attributes[attribute] = values.astype(np.float32)
        else:
            attributes[attribute] = colour_bytes(values, 255.0)
    return make_cloud(path, rows[:, :3].astype(np.float32), attributes)


def write_bin(path: Path, cloud: PointCloud, layout: str | None = None) -> None:
    """Write a ``.bin`` scan, ``kitti`` unless stated; what the cloud lacks is written as zero.

    Raises:
        FormatError: the cloud is geo-referenced, which float32 records cannot hold.
    """
    name = layout or "kitti"
    if name not in LAYOUTS:
        raise FormatError(path, f"layout {name!r} is unknown", STATE_LAYOUT)
    if cloud.origin.any():
        raise FormatError(
            path,
            "cannot hold geo-referenced coordinates (float32 records)",
            "write .ply, .pcd, .las or .npz, or drop the origin: cloud.replace(origin=(0, 0, 0))",
        )
    kind = LAYOUTS[name]
    rows = np.zeros((len(cloud), len(kind.columns)), dtype=kind.dtype)
    rows[:, :3] = cloud.points
    for column, attribute in enumerate(kind.columns[3:], start=3):
        if attribute in cloud.attributes:
            scale = 255.0 if attribute == "intensity" and name != "kitti" else 1.0
            rows[:, column] = cloud.attributes[attribute] * scale
    path.write_bytes(rows.tobytes())
