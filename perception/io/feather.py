"""Feather files (Arrow IPC): sweeps of Argoverse 2, and tables with columns x, y, z.

Argoverse 2's columns get the names of this package: ``laser_number`` becomes ``ring``, ``offset_ns``
becomes ``time`` in seconds since the start of the sweep. Other columns of numbers are kept.
Needs pyarrow: ``pip install 'sparse-perception[argoverse]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.io.columns import cloud_from_columns
from perception.io.errors import FormatError

if TYPE_CHECKING:
    from perception.io.cloud import PointCloud

AGAIN = "the file is damaged or truncated; copy it again"


def import_pyarrow() -> Any:
    """pyarrow.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.ipc  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError(
            "Feather files need pyarrow: pip install 'sparse-perception[argoverse]'"
        ) from None
    return pyarrow


def read_table(path: Path, columns: Sequence[str] | None = None) -> Any:
    """A ``pyarrow.Table`` with the named columns, or all; decoded without further threads.

    Threads of pyarrow do not survive a fork, and a data loader has processes of its own.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: it is no Feather file, is damaged, or lacks a column.
        ImportError: pyarrow is not installed.
    """
    pa = import_pyarrow()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; is the data set completely unpacked?"
        ) from None
    except OSError as error:
        raise FormatError(path, f"cannot be read ({error.strerror})", "check its rights") from None
    try:
        reader = pa.ipc.open_file(data)
        names = reader.schema.names
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise FormatError(
                path,
                f"has no column {', '.join(missing)} (columns: {', '.join(names) or 'none'})",
                "it is a table of another kind",
            )
        chosen = None if columns is None else [names.index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=chosen, use_threads=False)
        table = pa.ipc.open_file(data, options=options).read_all()
        table.validate(full=True)
    except FormatError:
        raise
    # Arrow's own errors are ValueErrors, OSErrors, TypeErrors, … and MemoryErrors of forged sizes.
    except (ValueError, OSError, TypeError, KeyError, NotImplementedError, MemoryError) as error:
        raise FormatError(path, f"cannot be read as Feather ({error})", AGAIN) from None
    return table if columns is None else table.select(list(columns))


def read_columns(path: Path, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Columns ``[N]`` as numpy arrays; without names, all that hold numbers.

    Raises:
        FormatError: as :func:`read_table`; or a column has missing values or no numbers.
    """
    pa = import_pyarrow()
    table = read_table(path, columns)
    result = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        numbers = (
            pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        )
        if numbers and not column.null_count:
            values = column.to_numpy()
            # numpy computes with half floats one by one.
            result[name] = values.astype(np.float32) if values.dtype == np.float16 else values
        elif columns is not None:
            raise FormatError(path, f"column {name} holds missing values or no numbers", AGAIN)
    return result


def read_feather(path: Path) -> PointCloud:
    """Read a sweep of Argoverse 2, or any table with columns x, y, z."""
    columns = read_columns(path)
    if "laser_number" in columns and "ring" not in columns:
        columns["ring"] = columns.pop("laser_number").astype(np.uint16)
    if "offset_ns" in columns and "time" not in columns:
        columns["time"] = (columns.pop("offset_ns") * 1e-9).astype(np.float32)
    return cloud_from_columns(path, columns)


def write_feather(path: Path, cloud: PointCloud) -> None:
    """Write x, y, z and every attribute ``[N]`` under its own name, uncompressed to read fast.

    Coordinates are float32, or float64 where the cloud has an origin; vectors per point are left
    out, which Feather has no column for.
    """
    pa = import_pyarrow()
    points = cloud.world() if cloud.origin.any() else cloud.points
    columns = {axis: np.ascontiguousarray(points[:, i]) for i, axis in enumerate("xyz")}
    columns |= {name: values for name, values in cloud.attributes.items() if values.ndim == 1}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
