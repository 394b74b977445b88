"""Files that several data sets share: headerless scans, folders of numbered files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.io import FormatError, PointCloud, normalise_intensity
from perception.io.bin import SENSOR_REACH

__all__ = [
    "check_points",
    "coordinates",
    "position",
    "read_records",
    "read_velodyne",
    "stems",
    "subfolder",
]

_AGAIN = "the file is damaged; copy it again"


def read_records(path: Path, columns: int) -> NDArray[np.float32]:
    """Rows ``[N, columns]`` of a headerless file of little-endian float32.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: it cannot be opened, is empty, is cut, or holds what no sensor measures.
    """
    try:
        size = os.path.getsize(path)
        if size == 0 or size % (4 * columns):
            cause = f"is {size} bytes long, no multiple of {4 * columns}" if size else "is empty"
            raise FormatError(
                path, cause, "the file is truncated or of another data set; copy it again"
            )
        values = np.fromfile(path, dtype="<f4")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such scan; is the data set completely unpacked?"
        ) from None
    except OSError as error:
        raise FormatError(
            path, f"cannot be read ({error.strerror or error})", "check its rights"
        ) from None
    rows = values[: size // (4 * columns) * columns].reshape(-1, columns)
    check_points(path, rows)
    return rows


def check_points(path: Path, rows: NDArray[np.floating]) -> None:
    """Refuse rows with a value that is not finite or beyond what a sensor reaches, in one pass.

    Raises:
        FormatError: naming how many rows are bad.
    """
    # NaN wins in max and min and fails every comparison.
    if len(rows) and not (rows.max() <= SENSOR_REACH and rows.min() >= -SENSOR_REACH):
        broken = int((~np.isfinite(rows).all(axis=1)).sum())
        if broken:
            cause = f"has {broken} of {len(rows)} points that are not finite"
        else:
            far = int((np.abs(rows) > SENSOR_REACH).any(axis=1).sum())
            cause = f"has {far} of {len(rows)} points with values beyond {SENSOR_REACH:g}"
        raise FormatError(path, cause, _AGAIN)


def read_velodyne(path: Path, *, time: float | None = None) -> PointCloud:
    """A KITTI scan: float32 x, y, z, intensity 0..1 in the LiDAR frame.

    Costs one ``np.fromfile``, one check and one copy into a cloud.
    """
    rows = read_records(path, 4)
    intensity = rows[:, 3].copy()
    if intensity.min() < 0 or intensity.max() > 1:  # written by another tool, in 0..255
        intensity = normalise_intensity(intensity)
    return PointCloud(coordinates(rows), {"intensity": intensity}, time=time)


def coordinates(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first three columns, contiguous; column by column numpy copies four times as fast."""
    points = np.empty((len(rows), 3), np.float32)
    for axis in range(3):
        points[:, axis] = rows[:, axis]
    return points


def stems(folder: Path, suffix: str, *, what: str) -> NDArray[np.bytes_]:
    """Names without suffix of the files in a folder, sorted, as an array of bytes.

    Raises:
        FileNotFoundError: there is no such folder, or no such file in it.
    """
    try:
        with os.scandir(folder) as entries:
            found = [e.name[: -len(suffix)] for e in entries if e.name.endswith(suffix)]
    except OSError:
        raise FileNotFoundError(
            f"{folder}: no such folder; it should hold {what} (*{suffix})"
        ) from None
    if not found:
        raise FileNotFoundError(f"{folder}: holds no *{suffix}; it should hold {what}")
    return np.array(sorted(name.encode() for name in found), dtype=bytes)


def subfolder(root: str | os.PathLike[str], names: tuple[str, ...], *, of: str) -> Path:
    """The first of `root` / name that is a folder: data sets are unpacked at several depths.

    Raises:
        FileNotFoundError: `root` is no folder, or has none of these.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise FileNotFoundError(f"{base}: no such folder; root= should be the folder of {of}")
    for name in names:
        if (base / name).is_dir():
            return base / name
    listing = sorted(entry.name for entry in os.scandir(base))[:8]
    raise FileNotFoundError(
        f"{base}: has no folder {' or '.join(names)} (but {', '.join(listing) or 'nothing'}); "
        f"root= should be the folder of {of}"
    )


def position(index: int, count: int) -> int:
    """A sample's number from an index that may count from the end.

    Raises:
        IndexError: there is no such sample.
    """
    number = index + count if index < 0 else index
    if not 0 <= number < count:
        raise IndexError(f"sample {index} of a data set of {count}")
    return number
