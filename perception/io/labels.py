"""Label files: one class, and perhaps one instance, a point.

======================  ======================================================================
``.label``              SemanticKITTI's uint32: class in the low half, instance in the high one
                        (https://github.com/PRBonn/semantic-kitti-api)
``.npy``                integers ``[N]`` or ``[N, 1]``: classes; ``[N, 2]``: classes, instances
``.txt``, ``.csv``      a line a point: a class, or a class and an instance
======================  ======================================================================

In the last two −1 is read as :data:`NO_CLASS`, as many tools write it.
"""

from __future__ import annotations

import io
import warnings
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perception.io.errors import FormatError

WHOLE = "expected whole numbers -1 .. 65535, a class (and an instance) a point"
#: What −1 becomes in the 16 bits of a label.
NO_CLASS = 65535


class Labels(NamedTuple):
    """Class and instance of every point of a file, two ``[N]`` uint16."""

    semantic: np.ndarray
    instance: np.ndarray


def read_labels(path: str | PathLike[str], count: int | None = None) -> Labels:
    """Read a label file.

    Args:
        path: the file, ``.label``, ``.npy``, ``.txt`` or ``.csv``; what is named otherwise is read
            as ``.label``.
        count: the number of points it must label, if known.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: the file is empty or cut, holds no whole numbers of 16 bits, or labels another
            number of points.
    """
    from perception.io.files import existing_file

    file = existing_file(path)
    suffix = file.suffix.lower()
    if suffix in (".npy", ".txt", ".csv"):
        labels = _from_table(file, _table(file, suffix))
    else:
        data = file.read_bytes()
        if not data or len(data) % 4:
            raise FormatError(
                file, f"is {len(data)} bytes long, no uint32 a point", "copy the label file again"
            )
        raw = np.frombuffer(data, dtype="<u4")
        labels = Labels((raw & 0xFFFF).astype(np.uint16), (raw >> 16).astype(np.uint16))
    if count is not None and len(labels.semantic) != count:
        raise FormatError(
            file,
            f"labels {len(labels.semantic)} points, the cloud has {count}",
            "take the label file of the same scan",
        )
    return labels


def _table(file: Path, suffix: str) -> np.ndarray:
    if suffix == ".npy":
        from perception.io.array import load_array

        return load_array(file)
    data = file.read_bytes().replace(b",", b" ")
    first, _, rest = data.lstrip().partition(b"\n")
    try:
        float(first.split()[0]) if first else None
    except ValueError:
        data = rest  # the first line names the columns
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about empty files
            return np.loadtxt(io.BytesIO(data), dtype=np.float64, ndmin=2, encoding="utf-8")
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(file, f"cannot be read as numbers ({error})", WHOLE) from None


def _from_table(file: Path, table: np.ndarray) -> Labels:
    columns = 1 if table.ndim == 1 else table.shape[1] if table.ndim == 2 else 0
    if table.dtype.kind not in "iuf" or columns not in (1, 2) or not len(table):
        raise FormatError(
            file, f"holds an array of shape {list(table.shape)} and dtype {table.dtype}", WHOLE
        )
    table = table.reshape(len(table), columns)
    whole = np.isfinite(table).all() and (table == np.floor(table)).all()
    if not whole or table.min() < -1 or table.max() > NO_CLASS:
        bad = np.nan_to_num(table.astype(np.float64), nan=0.5, posinf=0.5, neginf=0.5)
        row = int(((bad != np.floor(bad)) | (bad < -1) | (bad > NO_CLASS)).any(axis=1).argmax())
        raise FormatError(file, f"row {row} holds {table[row].tolist()}", WHOLE)
    semantic = np.where(table[:, 0] < 0, NO_CLASS, table[:, 0]).astype(np.uint16)
    instance = np.maximum(table[:, columns - 1], 0).astype(np.uint16)
    return Labels(semantic, instance if columns == 2 else np.zeros_like(semantic))


def write_labels(
    path: str | PathLike[str], semantic: np.ndarray, instance: np.ndarray | None = None
) -> None:
    """Write a ``.label`` file from classes and instances ``[N]``, integers in 0..65535."""
    raw = np.zeros(len(semantic), dtype=np.uint32)
    for values, shift in ((semantic, 0), (instance, 16)):
        if values is None:
            continue
        whole = np.asarray(values)
        if whole.dtype.kind not in "iu" or whole.shape != raw.shape:
            raise FormatError(path, "takes integers [N]", f"got {whole.dtype} {list(whole.shape)}")
        if len(whole) and (whole.min() < 0 or whole.max() > 0xFFFF):
            raise FormatError(path, "holds ids 0..65535", "renumber classes and instances")
        raw |= whole.astype(np.uint32) << np.uint32(shift)
    Path(path).write_bytes(raw.astype("<u4").tobytes())
