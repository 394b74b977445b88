"""SemanticKITTI ``.label`` files: one uint32 a point, class in the low, instance in the high half.

Source: https://github.com/PRBonn/semantic-kitti-api.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perception.io.errors import FormatError


class Labels(NamedTuple):
    """Class and instance of every point of a file, two ``[N]`` uint16."""

    semantic: np.ndarray
    instance: np.ndarray


def read_labels(path: str | PathLike[str], count: int | None = None) -> Labels:
    """Read a ``.label`` file.

    Args:
        path: the file.
        count: the number of points it must label, if known.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: the file is empty or cut, or labels another number of points.
    """
    from perception.io.files import existing_file

    file = existing_file(path)
    data = file.read_bytes()
    if not data or len(data) % 4:
        raise FormatError(
            file, f"is {len(data)} bytes long, no uint32 a point", "copy the label file again"
        )
    raw = np.frombuffer(data, dtype="<u4")
    if count is not None and len(raw) != count:
        raise FormatError(
            file,
            f"labels {len(raw)} points, the cloud has {count}",
            "take the label file of the same scan",
        )
    return Labels((raw & 0xFFFF).astype(np.uint16), (raw >> 16).astype(np.uint16))


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
