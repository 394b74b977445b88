"""``read`` and ``write``: any point-cloud file by its name."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from perception.io.cloud import PointCloud
from perception.io.errors import FormatError

# Longest first: scan.pcd.bin is a nuScenes .bin and scan.copc.laz a .laz.
SUFFIXES = (
    ".pcd.bin",
    ".bin",
    ".pcd",
    ".ply",
    ".las",
    ".laz",
    ".npy",
    ".npz",
    ".feather",
    ".xyz",
    ".csv",
    ".txt",
)
KNOWN = ", ".join(SUFFIXES)


def existing_file(path: str | PathLike[str]) -> Path:
    """The path, if it is a readable file.

    Raises:
        FileNotFoundError: there is nothing, with a remedy.
        FormatError: it is a directory or cannot be opened.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise FormatError(file, "is a directory", "name one file in it")
        if not file.exists():
            raise FileNotFoundError(f"{file}: no such file; check the path")
        with file.open("rb"):
            pass
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FormatError(
            file, f"cannot be opened ({error.strerror})", "check its rights"
        ) from None
    return file


def suffix_of(path: str | PathLike[str]) -> str:
    """The suffix that names the format, ``""`` if none of ``SUFFIXES`` does."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _reader(suffix: str) -> Callable[[Path], PointCloud]:
    """The reader of a suffix; each format's library is imported when its first file comes."""
    if suffix == ".pcd":
        from perception.io.pcd import read_pcd

        return read_pcd
    if suffix == ".ply":
        from perception.io.ply import read_ply

        return read_ply
    if suffix in (".las", ".laz"):
        from perception.io.las import read_las

        return read_las
    if suffix == ".npy":
        from perception.io.array import read_npy

        return read_npy
    if suffix == ".npz":
        from perception.io.array import read_npz

        return read_npz
    if suffix == ".feather":
        from perception.io.feather import read_feather

        return read_feather
    from perception.io.text import read_text

    return read_text


def read(path: str | PathLike[str], *, layout: str | None = None) -> PointCloud:
    """Read a point cloud from a file; the format is found by the name.

    ``.bin`` and ``.pcd.bin`` (KITTI, SemanticKITTI, nuScenes), ``.pcd`` (ascii, binary,
    compressed), ``.ply``, ``.las``, ``.laz`` (COPC too), ``.npy``, ``.npz``, ``.feather`` (Argoverse
    2), ``.xyz``, ``.csv``, ``.txt``. Intensities come in 0..1, colours as uint8, geo-referenced coordinates relative to
    ``PointCloud.origin``; points that are not finite are dropped with a warning
    (:mod:`perception.io.columns` holds the rules).

    Args:
        path: the file.
        layout: what a headerless ``.bin`` holds (``kitti``, ``nuscenes``, ``nuscenes-fp16``,
            ``xyz``, ``xyzrgb``); None recognises the first three (:mod:`perception.io.bin`).

    Returns:
        The cloud, at least one point.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: the file is damaged, truncated, empty, foreign, ambiguous or of an unknown
            kind; the message names cause and remedy.
        MemoryError: the points do not fit into memory.
        ImportError: a ``.feather`` file, and pyarrow is not installed.
    """
    file = existing_file(path)
    suffix = suffix_of(file)
    if suffix in (".bin", ".pcd.bin"):
        from perception.io.bin import read_bin

        return read_bin(file, layout)
    if file.suffix.lower() == ".label":
        raise FormatError(file, "holds labels, no points", "read it with read_labels()")
    if not suffix:
        raise FormatError(file, f"has an unknown suffix {file.suffix!r}", f"known are {KNOWN}")
    if layout is not None:
        raise FormatError(file, "takes no layout", "layout= is for headerless .bin files")
    return _reader(suffix)(file)


def write(path: str | PathLike[str], cloud: PointCloud, *, layout: str | None = None) -> None:
    """Write a point cloud to a file; the format is found by the name, as in :func:`read`.

    ``.npz`` and ``.ply`` keep everything; ``.bin`` and ``.npy`` keep what their columns hold.
    Coordinates are written with the origin added. Folders are made.

    Args:
        path: the file.
        cloud: the points.
        layout: of a ``.bin`` file; ``kitti`` if None.

    Raises:
        FormatError: the suffix is unknown, the format cannot hold the cloud, or the file cannot
            be written.
    """
    file = Path(path)
    suffix = suffix_of(file)
    if not suffix:
        raise FormatError(file, f"has an unknown suffix {file.suffix!r}", f"known are {KNOWN}")
    if layout is not None and suffix not in (".bin", ".pcd.bin"):
        raise FormatError(file, "takes no layout", "layout= is for headerless .bin files")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if suffix in (".bin", ".pcd.bin"):
            from perception.io.bin import write_bin

            write_bin(file, cloud, layout or ("nuscenes" if suffix == ".pcd.bin" else "kitti"))
        else:
            _writer(suffix)(file, cloud)
    except OSError as error:
        cause = f"cannot be written ({error.strerror or error})"
        raise FormatError(file, cause, "check the folder and its rights") from None


def _writer(suffix: str) -> Callable[[Path, PointCloud], None]:
    if suffix == ".pcd":
        from perception.io.pcd import write_pcd

        return write_pcd
    if suffix == ".ply":
        from perception.io.ply import write_ply

        return write_ply
    if suffix in (".las", ".laz"):
        from perception.io.las import write_las

        return write_las
    if suffix == ".npy":
        from perception.io.array import write_npy

        return write_npy
    if suffix == ".npz":
        from perception.io.array import write_npz

        return write_npz
    if suffix == ".feather":
        from perception.io.feather import write_feather

        return write_feather
    from perception.io.text import write_text

    return write_text
