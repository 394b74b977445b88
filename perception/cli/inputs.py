"""What the paths on a command line mean: files, folders, sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.io import FormatError
from perception.io.files import suffix_of

# What a folder is searched for first: a folder of scans also holds poses.txt and calib.txt.
SCANS = (".bin", ".pcd.bin", ".pcd", ".ply", ".las", ".laz")
SWEEPS = (".feather",)
TABLES = (".npy", ".npz", ".xyz", ".csv")


@dataclass(frozen=True)
class Job:
    """A file to read, and where, below the output folder, its results go (without suffix)."""

    path: Path
    output: Path


def collect(paths: Sequence[Path]) -> list[Job]:
    """The files that paths name, in order; the results of two never share a name.

    A folder stands for all scans in it and below, sorted by name, and its results keep its
    sub-folders.

    Raises:
        FileNotFoundError: a path does not exist.
        FormatError: a folder holds no scan.
    """
    jobs: list[Job] = []
    taken: set[Path] = set()
    for path in paths:
        if path.is_dir():
            files = _scans_in(path)
            found = [(file, file.relative_to(path)) for file in files]
        elif path.exists():
            found = [(path, Path(path.name))]
        else:
            raise FileNotFoundError(f"{path}: no such file or folder; check the path")
        for file, place in found:
            jobs.append(Job(file, _free_name(file, place, taken)))
    return jobs


def _scans_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for kinds in (SCANS, SWEEPS, TABLES):
        scans = [file for file in files if suffix_of(file) in kinds]
        if kinds == SWEEPS:
            # A log of Argoverse 2 has poses, boxes and calibration in files of the same kind.
            scans = [file for file in scans if file.parent.resolve().name == "lidar"] or scans
        if scans:
            return scans
    raise FormatError(
        folder,
        "holds no point cloud",
        f"a folder is searched for {', '.join(SCANS + SWEEPS + TABLES)}",
    )


def _free_name(file: Path, place: Path, taken: set[Path]) -> Path:
    stem = place.with_name(place.name[: -len(suffix_of(place)) or None])
    parent = file.resolve().parent.name
    options = [stem, stem.with_name(f"{parent}-{stem.name}")]
    options += [stem.with_name(f"{stem.name}-{i}") for i in range(2, len(taken) + 3)]
    name = next(option for option in options if option not in taken)
    taken.add(name)
    return name
