"""Text files, one point a line: ``.xyz``, ``.txt``, ``.csv``.

Numbers are separated by commas, semicolons, tabs or spaces. Lines starting with ``#`` or ``//``
are comments; the first line may name the columns (with or without such a mark). Without names the
columns are those of :func:`perception.io.array.column_names`.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from perception.io.array import column_names
from perception.io.cloud import PointCloud
from perception.io.columns import canonical_name, cloud_from_columns
from perception.io.errors import FormatError

REMEDY = "expected lines of numbers: x y z [intensity ...], or a first line naming the columns"


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _split(line: str, delimiter: str | None) -> list[str]:
    return [word.strip().strip('"') for word in line.strip().split(delimiter)]


def read_text(path: Path) -> PointCloud:
    """Read a text file of points."""
    data = path.read_bytes()
    if not data.strip():
        raise FormatError(path, "is empty", "copy or record it again")
    if b"\0" in data[:4096]:
        raise FormatError(path, "is binary, no text", "rename it to its real format")
    lines = data[: 1 << 16].decode("utf-8-sig", errors="replace").splitlines()
    names: list[str] | None = None
    first = ""
    skip = 0
    for line in lines:
        if not line.strip():
            skip += 1
            continue
        plain = line.strip().lstrip("#/").strip()
        delimiter = next((mark for mark in (",", ";", "\t") if mark in plain), None)
        words = _split(plain, delimiter)
        commented = line.strip().startswith(("#", "//"))
        if not commented and _number(words[0]):
            first = line
            break
        if {"x", "y", "z"} <= {canonical_name(word) for word in words}:
            names = words
        elif not commented and skip + 1 < len(lines) and words:
            # A count of points, as some .xyz exporters write, or a title: only one such line.
            raise FormatError(path, f"has the line {line.strip()[:40]!r}", REMEDY)
        skip += 1
    if not first:
        raise FormatError(path, "has no line of numbers", REMEDY)
    delimiter = next((mark for mark in (",", ";", "\t") if mark in first), None)
    width = len(_split(first, delimiter))
    if width < 3:
        raise FormatError(path, f"has {width} numbers a line", REMEDY)
    if names is not None and len(names) != width:
        raise FormatError(path, f"names {len(names)} columns but holds {width}", REMEDY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = np.loadtxt(
                io.BytesIO(data),
                dtype=np.float64,
                delimiter=delimiter,
                comments=["#", "//"],
                skiprows=skip,
                ndmin=2,
                encoding="utf-8",
            )
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(path, f"cannot be read as numbers ({error})", REMEDY) from None
    if names is None:
        names = list(column_names(table.shape[1]))
    return cloud_from_columns(path, {name: table[:, i].copy() for i, name in enumerate(names)})


def write_text(path: Path, cloud: PointCloud) -> None:
    """Write x, y, z and all scalar attributes with a line of names; commas for ``.csv``."""
    xyz = cloud.world() if cloud.origin.any() else cloud.points
    columns = {name: xyz[:, axis] for axis, name in enumerate("xyz")}
    for name, values in cloud.attributes.items():
        if values.ndim == 1 and values.dtype.kind in "fiub":
            columns[name] = values
    comma = path.suffix.lower() == ".csv"
    formats = [
        "%d" if v.dtype.kind in "iub" else "%.15g" if v.dtype.itemsize == 8 else "%.9g"
        for v in columns.values()
    ]
    np.savetxt(
        path,
        np.stack([values.astype(np.float64) for values in columns.values()], axis=1),
        fmt=formats,
        delimiter="," if comma else " ",
        header=("," if comma else " ").join(columns),
        comments="" if comma else "# ",
    )
