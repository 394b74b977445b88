"""PCD files of the Point Cloud Library: ascii, binary and binary_compressed.

Format: a text header (FIELDS, SIZE, TYPE, COUNT, WIDTH, HEIGHT, POINTS, DATA) and the points: one
line each (ascii), one record each (binary), or all values of one field after the other, packed
with LZF (binary_compressed). Source: https://pointclouds.org/documentation/tutorials/pcd_file_format.html
and Marc Lehmann's LibLZF for the packing.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.io.cloud import PointCloud
from perception.io.columns import cloud_from_columns
from perception.io.errors import FormatError
from perception.io.lzf import lzf_decompress

HEADER_LIMIT = 65536  # bytes; a PCD header has eleven short lines.
TYPES = {
    ("F", 4): "<f4",
    ("F", 8): "<f8",
    ("U", 1): "u1",
    ("U", 2): "<u2",
    ("U", 4): "<u4",
    ("U", 8): "<u8",
    ("I", 1): "i1",
    ("I", 2): "<i2",
    ("I", 4): "<i4",
    ("I", 8): "<i8",
}
AGAIN = "the file is damaged or truncated; copy or export it again"


@dataclass(frozen=True)
class _Field:
    name: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _Header:
    fields: tuple[_Field, ...]
    points: int
    data: str
    size: int  # bytes of the header itself

    @property
    def record(self) -> int:
        return sum(np.dtype(field.dtype).itemsize * field.count for field in self.fields)


def _header(path: Path, data: bytes) -> _Header:
    entries: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in entries:
        end = data.find(b"\n", position, HEADER_LIMIT)
        if end < 0:
            raise FormatError(path, "has no PCD header with a DATA line", AGAIN)
        words = data[position:end].decode("ascii", errors="replace").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            entries[words[0].upper()] = words[1:]
    try:
        names = entries["FIELDS"]
        sizes = [int(word) for word in entries["SIZE"]]
        kinds = [word.upper() for word in entries["TYPE"]]
        counts = [int(word) for word in entries.get("COUNT", ["1"] * len(names))]
        width = int(entries["WIDTH"][0])
        height = int(entries.get("HEIGHT", ["1"])[0])
        points = int(entries.get("POINTS", [str(width * height)])[0])
        form = entries["DATA"][0].lower()
        fields = tuple(
            _Field(name, TYPES[kind, size], count)
            for name, kind, size, count in zip(names, kinds, sizes, counts, strict=True)
        )
    except (KeyError, ValueError, IndexError) as error:
        raise FormatError(path, f"has a broken PCD header ({error!r})", AGAIN) from None
    if points < 0 or not fields or any(field.count < 1 for field in fields):
        raise FormatError(path, "has a PCD header with negative or missing numbers", AGAIN)
    if sum(field.count for field in fields) > HEADER_LIMIT:
        raise FormatError(path, "has a PCD header with an impossible COUNT", AGAIN)
    return _Header(fields, points, form, position)


def _columns(path: Path, header: _Header, body: bytes) -> dict[str, np.ndarray]:
    if header.data == "ascii":
        return _ascii(path, header, body)
    need = header.points * header.record
    if header.data == "binary":
        if len(body) < need:
            raise FormatError(path, f"ends after {len(body)} of {need} bytes of points", AGAIN)
        dtype = np.dtype(
            [
                (str(i), f.dtype, (f.count,) if f.count > 1 else ())
                for i, f in enumerate(header.fields)
            ]
        )
        rows = np.frombuffer(body, dtype=dtype, count=header.points)
        return {f.name: rows[str(i)].copy() for i, f in enumerate(header.fields) if f.name != "_"}
    if header.data != "binary_compressed":
        raise FormatError(
            path, f"has DATA {header.data!r}", "expected ascii or binary[_compressed]"
        )
    if len(body) < 8:
        raise FormatError(path, "ends before its points", AGAIN)
    packed, unpacked = struct.unpack_from("<II", body)
    if unpacked != need or len(body) - 8 < packed:
        raise FormatError(
            path,
            f"holds {len(body) - 8} of {packed} packed bytes, for {unpacked} of {need} bytes of "
            "points",
            AGAIN,
        )
    flat = lzf_decompress(np.frombuffer(body, np.uint8, packed, 8), unpacked)
    if flat is None:
        raise FormatError(path, "has packed points that do not unpack", AGAIN)
    columns, position = {}, 0
    for field in header.fields:
        width = np.dtype(field.dtype).itemsize * field.count * header.points
        values = flat[position : position + width].view(field.dtype)
        position += width
        if field.name != "_":
            columns[field.name] = values if field.count == 1 else values.reshape(-1, field.count)
    return columns


def _ascii(path: Path, header: _Header, body: bytes) -> dict[str, np.ndarray]:
    width = sum(field.count for field in header.fields)
    # A number and its separator take two bytes at least, which bounds what a header may promise.
    if header.points * width * 2 > len(body) + 1:
        raise FormatError(path, f"is too short for {header.points} points", AGAIN)
    # float64 holds float32 and 32-bit integers (packed colours) exactly.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = np.loadtxt(
                io.BytesIO(body), dtype=np.float64, ndmin=2, max_rows=header.points or 1
            )
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(path, f"has points that are no numbers ({error})", AGAIN) from None
    if table.shape != (header.points, width):
        raise FormatError(
            path,
            f"holds {table.shape[0]} points of {table.shape[1]} numbers, expected "
            f"{header.points} of {width}",
            AGAIN,
        )
    columns, position = {}, 0
    for field in header.fields:
        values = table[:, position : position + field.count]
        position += field.count
        if field.name == "_":
            continue
        if np.dtype(field.dtype).kind in "iu":
            limits = np.iinfo(field.dtype)
            values = np.clip(
                np.nan_to_num(values),
                float(limits.min),
                float(limits.max) * (1 - 1e-15) if limits.bits == 64 else limits.max,
            )
        with np.errstate(over="ignore"):
            typed = values.astype(field.dtype)
        columns[field.name] = typed[:, 0] if field.count == 1 else typed
    return columns


def read_pcd(path: Path) -> PointCloud:
    """Read a ``.pcd`` file of any DATA kind."""
    data = path.read_bytes()
    if not data:
        raise FormatError(path, "is empty", "copy or record it again")
    header = _header(path, data)
    return cloud_from_columns(path, _columns(path, header, data[header.size :]))


def write_pcd(path: Path, cloud: PointCloud) -> None:
    """Write a binary ``.pcd``; coordinates are float64 where the cloud has an origin."""
    columns: dict[str, np.ndarray] = {}
    xyz = cloud.world() if cloud.origin.any() else cloud.points
    for axis, name in enumerate("xyz"):
        columns[name] = xyz[:, axis]
    for name, values in cloud.attributes.items():
        if values.dtype.kind in "fiu" and values.dtype.itemsize <= 8:
            columns[name] = (
                values.astype("<f4")
                if values.dtype.itemsize == 2 and values.dtype.kind == "f"
                else values
            )
        elif values.dtype.kind == "b":
            columns[name] = values.astype(np.uint8)
    letters = {"f": "F", "i": "I", "u": "U"}
    counts = [1 if values.ndim == 1 else values.shape[1] for values in columns.values()]
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        "FIELDS " + " ".join(columns),
        "SIZE " + " ".join(str(values.dtype.itemsize) for values in columns.values()),
        "TYPE " + " ".join(letters[values.dtype.kind] for values in columns.values()),
        "COUNT " + " ".join(map(str, counts)),
        f"WIDTH {len(cloud)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(cloud)}",
        "DATA binary",
    ]
    record = np.dtype(
        [
            (str(i), values.dtype.newbyteorder("<"), (count,) if count > 1 else ())
            for i, (values, count) in enumerate(zip(columns.values(), counts, strict=True))
        ]
    )
    rows = np.zeros(len(cloud), dtype=record)
    for i, (values, count) in enumerate(zip(columns.values(), counts, strict=True)):
        rows[str(i)] = values if count > 1 or values.ndim == 1 else values[:, 0]
    path.write_bytes("\n".join(lines).encode("ascii", errors="replace") + b"\n" + rows.tobytes())
