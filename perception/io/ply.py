"""PLY files (ascii, binary; what has lists through plyfile). The vertices are the points; faces are left out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from perception.io.cloud import PointCloud
from perception.io.columns import cloud_from_columns
from perception.io.errors import FormatError

HEADER_LIMIT = 1 << 20
TYPES = {
    **{"char": "i1", "short": "i2", "int": "i4", "uchar": "u1", "ushort": "u2", "uint": "u4"},
    **{"int8": "i1", "int16": "i2", "int32": "i4", "uint8": "u1", "uint16": "u2", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
AGAIN = "the file is damaged or truncated; copy or export it again"


def _check_header(path: Path, data: bytes) -> None:
    """Refuse foreign files and counts larger than the file, before anything is allocated."""
    if not data.startswith(b"ply"):
        raise FormatError(path, "does not start with 'ply'", "it is no PLY file; rename or convert")
    end = data.find(b"end_header", 0, HEADER_LIMIT)
    if end < 0:
        raise FormatError(path, "has no 'end_header' line", AGAIN)
    counts: dict[str, int] = {}
    for line in data[:end].decode("ascii", errors="replace").splitlines():
        words = line.split()
        if words and words[0] == "element":
            try:
                counts[words[1]] = int(words[2])
            except (IndexError, ValueError):
                raise FormatError(path, f"has a broken header line {line!r}", AGAIN) from None
    if "vertex" not in counts:
        raise FormatError(path, "has no element 'vertex'", "export the points as vertices")
    if min(counts.values()) < 0 or sum(counts.values()) > len(data) - end:
        raise FormatError(path, f"is too short for {sum(counts.values())} elements", AGAIN)


def _records(path: Path, data: bytes) -> dict[str, np.ndarray] | None:
    """The vertices of a binary file as columns; None for text and for elements with lists.

    plyfile reads values one by one from memory, and a mesh's faces from anywhere: a hundred times
    as slowly as the records lie there.
    """
    end = data.find(b"end_header", 0, HEADER_LIMIT)
    start = data.find(b"\n", end) + 1
    order, element, count = "", "", 0
    fields: list[tuple[str, str]] = []
    for line in [*data[:end].decode("ascii", errors="replace").splitlines(), "element end 0"]:
        words = line.split()
        if words[:1] == ["format"]:
            order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(
                "".join(words[1:2]), ""
            )
        elif words[:1] == ["element"]:
            if element == "vertex":
                break
            start += count * (np.dtype(fields).itemsize if fields else 0)
            element, count, fields = words[1], int(words[2]), []
        elif words[:1] == ["property"]:
            if len(words) != 3 or words[1] not in TYPES or not order:
                return None
            fields.append((words[2], order + TYPES[words[1]]))
    if not fields or len({name for name, _ in fields}) < len(fields):
        return None
    record = np.dtype(fields)
    if start + count * record.itemsize > len(data):
        held = max(len(data) - start, 0) // record.itemsize
        raise FormatError(path, f"holds {held} of {count} vertices", AGAIN)
    rows = np.frombuffer(data, record, count, start)
    return {name: rows[name].astype(kind[1:]) for name, kind in fields}


def _through_plyfile(path: Path, data: bytes) -> dict[str, np.ndarray]:
    from plyfile import PlyData

    try:
        vertex = PlyData.read(io.BytesIO(data))["vertex"]
        columns = {
            prop.name: np.ascontiguousarray(vertex[prop.name])
            for prop in vertex.properties
            if vertex[prop.name].dtype.kind in "fiu"  # lists are objects
        }
    except Exception as error:  # plyfile raises whatever numpy or int() met in a broken file
        raise FormatError(path, f"cannot be read as PLY ({error})", AGAIN) from None
    return {
        name: values.astype(values.dtype.newbyteorder("="), copy=False)
        for name, values in columns.items()
    }


def read_ply(path: Path) -> PointCloud:
    """Read the vertices of a ``.ply`` file and their scalar properties."""
    data = path.read_bytes()
    if not data:
        raise FormatError(path, "is empty", "copy or record it again")
    _check_header(path, data)
    columns = _records(path, data)
    return cloud_from_columns(path, _through_plyfile(path, data) if columns is None else columns)


def write_ply(path: Path, cloud: PointCloud) -> None:
    """Write a binary little-endian ``.ply``; float64 coordinates where the cloud has an origin.

    A vector attribute ``normal [N, 3]`` becomes ``normal_0``, ``normal_1``, ``normal_2``; 64-bit
    integers, which PLY lacks, become float64.
    """
    from plyfile import PlyData, PlyElement

    xyz = cloud.world() if cloud.origin.any() else cloud.points
    columns = {name: xyz[:, axis] for axis, name in enumerate("xyz")}
    for name, values in cloud.attributes.items():
        if values.dtype.kind not in "fiub":
            continue
        if values.dtype.kind == "b":
            values = values.astype(np.uint8)
        elif values.dtype.kind in "iu" and values.dtype.itemsize == 8:
            values = values.astype(np.float64)
        elif values.dtype == np.float16:
            values = values.astype(np.float32)
        if values.ndim == 1:
            columns[name] = values
        else:
            columns.update({f"{name}_{i}": values[:, i] for i in range(values.shape[1])})
    rows = np.empty(len(cloud), dtype=[(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    with path.open("wb") as file:
        PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(file)
