"""LAS and LAZ files (ASPRS), COPC included, through laspy and lazrs.

Coordinates are geo-referenced doubles in the unit of the file's coordinate system; they are kept
exact to about a millimetre as ``points + origin`` (see :mod:`perception.io.columns`). The ASPRS
classification becomes attribute ``label``; intensity is brought to 0..1 by the common rule,
because many files hold 8 or 12 of the format's 16 bits.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np

from perception.io.cloud import PointCloud
from perception.io.columns import cloud_from_columns
from perception.io.errors import FormatError

AGAIN = "the file is damaged or truncated; copy or export it again"
CHUNK = 1_000_000  # points decoded at a time, so that a forged count allocates nothing
MAX_CHUNK = 50_000_000  # points in a compressed chunk; writers use 50 000
# Layers of the LASzip item kinds that are stored in layers; extra bytes have one per byte.
LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
EXTRA_BYTES = 14
SKIPPED = {"X", "Y", "Z", "x", "y", "z", "key_point", "synthetic", "withheld", "overlap"}
SCALE = 0.0001  # metres; written coordinates are multiples of it


def _check_header(path: Path, data: bytes) -> None:
    """Refuse foreign files and impossible counts, over which the library would loop or allocate."""
    if not data.startswith(b"LASF"):
        raise FormatError(path, "does not start with 'LASF'", "it is no LAS/LAZ file")
    if len(data) < 227:
        raise FormatError(path, f"ends after {len(data)} bytes, inside its header", AGAIN)
    minor = data[25]
    header_size, point_offset, records = struct.unpack_from("<HII", data, 94)
    kind, record_length, points = struct.unpack_from("<BHI", data, 104)
    laid_out = header_size + 54 * records <= point_offset <= len(data)
    position, laszip = header_size, None
    for _ in range(records if laid_out else 0):
        if position + 54 > len(data):
            laid_out = False
            break
        record = position + 54
        position = record + struct.unpack_from("<H", data, position + 20)[0]
        if data[record - 52 : record - 36].startswith(b"laszip encoded"):
            laszip = data[record:position]
    if minor >= 4 and len(data) >= 375:
        first, extended, points = struct.unpack_from("<QIQ", data, 235)
        if extended and (first + 60 * extended > len(data)):
            laid_out = False
    if not laid_out or position > point_offset:
        raise FormatError(path, "has a header that points beyond the file", AGAIN)
    compressed = bool(kind & 0x80)
    if not compressed and points * record_length > len(data) - point_offset:
        raise FormatError(
            path,
            f"holds {len(data) - point_offset} of {points * record_length} bytes of points",
            AGAIN,
        )
    if compressed and points:
        if laszip is None:
            raise FormatError(path, "is compressed but has no LASzip record", AGAIN)
        _check_chunks(path, data, laszip, point_offset, record_length, points)


def _check_chunks(
    path: Path, data: bytes, laszip: bytes, point_offset: int, record_length: int, points: int
) -> None:
    """The compressed chunks must lie in the file and so must the layers inside each.

    The decoder allocates what these numbers say and ends the process where it cannot.
    """
    import lazrs  # type: ignore[import-untyped]

    if point_offset + 8 > len(data):
        raise FormatError(path, "ends before its points", AGAIN)
    (table,) = struct.unpack_from("<q", data, point_offset)
    if table == -1:  # written as a stream: the position is in the last eight bytes
        (table,) = struct.unpack_from("<q", data, len(data) - 8)
    if not point_offset + 8 <= table <= len(data) - 8:
        raise FormatError(path, "has no table of its compressed chunks", AGAIN)
    if struct.unpack_from("<I", data, table + 4)[0] > min(points, len(data)):
        raise FormatError(path, "has an impossible number of compressed chunks", AGAIN)
    file = io.BytesIO(data)
    file.seek(point_offset)
    vlr = lazrs.LazVlr(laszip)
    chunks = lazrs.read_chunk_table(file, vlr)
    if vlr.item_size() != record_length or sum(size for _, size in chunks) > len(data):
        raise FormatError(path, "has compressed chunks larger than the file", AGAIN)
    if vlr.uses_variable_size_chunks() and sum(count for count, _ in chunks) != points:
        raise FormatError(path, "has chunks that do not add up to its points", AGAIN)
    if not vlr.uses_variable_size_chunks() and vlr.chunk_size() > MAX_CHUNK:
        raise FormatError(path, f"has chunks of {vlr.chunk_size()} points", AGAIN)
    # Formats 6 to 10: point, number of points, size of every layer, layers.
    (items,) = struct.unpack_from("<H", laszip, 32)
    kinds = [struct.unpack_from("<HH", laszip, 34 + 6 * item) for item in range(items)]
    layers = sum(LAYERS.get(kind, size if kind == EXTRA_BYTES else 0) for kind, size in kinds)
    position = point_offset + 8
    for _, size in chunks if layers else ():
        first = position + record_length + 4
        sizes = first + 4 * layers
        if (
            sizes > len(data)
            or sizes + sum(struct.unpack_from(f"<{layers}I", data, first)) > position + size
        ):
            raise FormatError(path, "has a compressed chunk larger than its place", AGAIN)
        position += size


def read_las(path: Path) -> PointCloud:
    """Read a ``.las``, ``.laz`` or ``.copc.laz`` file."""
    import laspy

    data = path.read_bytes()
    if not data:
        raise FormatError(path, "is empty", "copy or record it again")
    parts: dict[str, list[np.ndarray]] = {}
    try:
        _check_header(path, data)
        with laspy.open(path) as reader:
            names = [n for n in reader.header.point_format.dimension_names if n not in SKIPPED]
            for chunk in reader.chunk_iterator(CHUNK):
                for axis in "xyz":
                    parts.setdefault(axis, []).append(np.asarray(chunk[axis], dtype=np.float64))
                for name in names:
                    parts.setdefault(name, []).append(np.asarray(chunk[name]))
            promised = reader.header.point_count
    except FormatError:
        raise
    except Exception as error:  # laspy and lazrs raise their own kinds and whatever struct met
        raise FormatError(path, f"cannot be read as LAS ({error})", AGAIN) from None
    except BaseException as error:
        # A panic in the Rust decoder arrives as a BaseException of its own.
        if type(error).__name__ == "PanicException":
            raise FormatError(path, "cannot be read as LAZ (decoder failed)", AGAIN) from None
        raise
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    if not columns or len(columns["x"]) == 0:
        raise FormatError(path, "holds no points", "check how the file was written")
    if len(columns["x"]) != promised:
        raise FormatError(path, f"holds {len(columns['x'])} of {promised} points", AGAIN)
    taken = {name.lower() for name in columns}
    columns = {
        # An extra dimension "Intensity" beside the standard one keeps its own name.
        name if name == name.lower() or name.lower() not in taken - {name} else f"extra_{name}": v
        for name, v in columns.items()
    }
    return cloud_from_columns(path, columns, frame="world")


def write_las(path: Path, cloud: PointCloud) -> None:
    """Write LAS 1.4, or LAZ where the name says so, at a resolution of 0.1 mm.

    Intensity 0..1 becomes 16 bits, labels the classification, colours 16 bits; other numeric
    attributes ``[N]`` are written as extra dimensions.

    Raises:
        FormatError: the cloud is wider than 32-bit multiples of 0.1 mm (214 km) reach.
    """
    import laspy

    coloured = all(name in cloud.attributes for name in ("red", "green", "blue"))
    header = laspy.LasHeader(point_format=7 if coloured else 6, version="1.4")
    header.scales = np.full(3, SCALE)
    header.offsets = cloud.origin
    if len(cloud) and np.abs(cloud.points).max() / SCALE > 2**31 - 1:
        raise FormatError(path, "cannot hold a cloud wider than 214 km", "crop the cloud")
    standard = {
        "intensity": ("intensity", lambda v: np.round(np.clip(v, 0, 1) * 65535).astype(np.uint16)),
        "label": ("classification", lambda v: np.asarray(v).astype(np.uint8)),
        "time": ("gps_time", lambda v: np.asarray(v, dtype=np.float64)),
    }
    if coloured:
        for name in ("red", "green", "blue"):
            standard[name] = (name, lambda v: np.asarray(v).astype(np.uint16) * 256)
    extra = {}
    for name, values in cloud.attributes.items():
        known = set(header.point_format.dimension_names)
        numeric = values.ndim == 1 and values.dtype.kind in "fiu" and values.dtype.itemsize <= 8
        if name not in standard and numeric and name not in known and len(name) <= 32:
            kept = values.astype(np.float32) if values.dtype == np.float16 else values
            extra[name] = kept
            header.add_extra_dim(laspy.ExtraBytesParams(name=name, type=kept.dtype))
    las = laspy.LasData(header)
    las.xyz = cloud.world()
    for name, values in cloud.attributes.items():
        if name in standard and values.ndim == 1:
            target, convert = standard[name]
            las[target] = convert(values)
        elif name in extra:
            las[name] = extra[name]
    las.write(str(path))
