"""numpy files: ``.npy`` with an array ``[N, 3+]`` and ``.npz`` with one, or with named columns.

Columns of an unnamed array ``[N, C]``: x, y, z, then for C = 4 intensity; for C = 5 intensity and
ring; for C = 6 red, green, blue; for C = 7 intensity and the colours; otherwise intensity and
``column4``, ``column5``, … Pickled objects are never loaded.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from perception.io.cloud import PointCloud
from perception.io.columns import canonical_columns, cloud_from_columns, make_cloud
from perception.io.errors import FormatError

POINT_KEYS = ("points", "pc", "xyz", "pos", "coords", "point_cloud", "cloud", "data", "arr_0")
AGAIN = "the file is damaged or truncated; copy or export it again"
WIDE = {
    3: (),
    4: ("intensity",),
    5: ("intensity", "ring"),
    6: ("red", "green", "blue"),
    7: ("intensity", "red", "green", "blue"),
}


def column_names(count: int) -> tuple[str, ...]:
    """Names of the columns of an unnamed table of `count` >= 3 columns."""
    rest = WIDE.get(count, ("intensity", *(f"column{i}" for i in range(4, count))))
    return ("x", "y", "z", *rest)


def _from_array(path: Path, array: np.ndarray) -> PointCloud:
    if array.dtype.names:
        fields = {name: np.ascontiguousarray(array[name].reshape(-1)) for name in array.dtype.names}
        return cloud_from_columns(path, fields)
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise FormatError(
            path,
            f"holds an array of shape {list(array.shape)} and dtype {array.dtype}",
            "expected numbers [N, 3+]: x, y, z[, intensity, ...]",
        )
    named = canonical_columns(
        {name: array[:, i] for i, name in enumerate(column_names(array.shape[1])) if i > 2}
    )
    return make_cloud(path, array[:, :3], {name: v.copy() for name, v in named.items()})


def _check_npy(path: Path, head: bytes, size: int) -> None:
    """Refuse a header that promises more than the file holds, before numpy allocates it."""
    import io

    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if reader is None:
        raise ValueError(f"npy version {version}")
    shape, _, dtype = reader(stream)
    if dtype.hasobject:
        raise ValueError("pickled objects are never loaded")
    need = dtype.itemsize
    for length in shape:
        need *= int(length)
    if need > size or any(length < 0 for length in shape):
        raise FormatError(path, f"holds {size} of {need} bytes", AGAIN)


def load_array(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file; nothing is unpickled, nor allocated on a forged header's word.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: it is damaged, or no numpy file.
    """
    try:
        with path.open("rb") as file:
            _check_npy(path, file.read(65536), path.stat().st_size)
        return np.asarray(np.load(path, allow_pickle=False))
    except FormatError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; check the path") from None
    except Exception as error:  # numpy parses the header with ast and raises its errors too
        raise FormatError(path, f"cannot be read as a numpy array ({error})", AGAIN) from None


def read_npy(path: Path) -> PointCloud:
    """Read an array ``[N, 3+]`` or a structured array with fields x, y, z."""
    return _from_array(path, load_array(path))


def read_npz(path: Path) -> PointCloud:
    """Read a ``.npz``: arrays x, y, z, or one array of points under a usual name.

    Usual names are those of ``POINT_KEYS``, else the only array ``[N, 3+]``. Other arrays of N
    rows become attributes, ``origin`` and ``time`` (one number) fields of the cloud.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as member:
                    _check_npy(path, member.read(65536), info.file_size)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FormatError:
        raise
    except Exception as error:  # zipfile, zlib and numpy have their own kinds
        raise FormatError(path, f"cannot be read as npz ({error})", AGAIN) from None
    if not {"x", "y", "z"} <= arrays.keys():
        tables = [n for n, a in arrays.items() if a.ndim == 2 and a.shape[1] >= 3]
        key = next((name for name in POINT_KEYS if name in tables), None)
        if key is None and len(tables) == 1:
            key = tables[0]
        if key is None:
            shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in arrays.items()) or "none"
            raise FormatError(
                path, f"has no array of points (arrays: {shapes})", "name it 'points' [N, 3+]"
            )
        table = arrays.pop(key)
    else:
        table = None
    origin = arrays.pop("origin", None)
    time = arrays.pop("time") if "time" in arrays and arrays["time"].ndim == 0 else None
    try:
        cloud = (
            cloud_from_columns(path, {n: a for n, a in arrays.items() if a.ndim == 1})
            if table is None
            else _from_array(path, table)
        )
        if table is not None:
            rows = {n: a for n, a in arrays.items() if a.ndim in (1, 2) and len(a) == len(table)}
            if cloud.valid is not None:
                rows = {name: values[cloud.valid] for name, values in rows.items()}
            cloud = cloud.with_attributes(canonical_columns(rows))
        if origin is not None:
            cloud = cloud.replace(origin=cloud.origin + origin, frame="world")
        return cloud.replace(time=None if time is None else float(time))
    except FormatError:
        raise
    except (ValueError, TypeError) as error:
        raise FormatError(path, f"holds arrays that do not fit ({error})", AGAIN) from None


def write_npy(path: Path, cloud: PointCloud) -> None:
    """Write ``[N, 3]``, or ``[N, 4]`` with intensity; float64 where the cloud has an origin."""
    table = cloud.world() if cloud.origin.any() else cloud.points
    if "intensity" in cloud.attributes:
        table = np.concatenate([table, cloud.attributes["intensity"][:, None]], axis=1)
    with path.open("wb") as file:
        np.save(file, table, allow_pickle=False)


def write_npz(path: Path, cloud: PointCloud) -> None:
    """Write everything the cloud holds: ``points``, attributes, ``origin``, ``time``."""
    arrays: dict[str, Any] = {
        n: v for n, v in cloud.attributes.items() if n not in ("points", "origin")
    }
    if cloud.origin.any():
        arrays["origin"] = cloud.origin
    if cloud.time is not None and "time" not in arrays:
        arrays["time"] = np.asarray(cloud.time, dtype=np.float64)
    with path.open("wb") as file:
        np.savez_compressed(file, points=cloud.points, **arrays)
