"""Which data set a folder is, by what lies in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perception.datasets.sample import Scans

__all__ = ["LAYOUTS", "Layout", "layout_at", "layouts_below"]


@dataclass(frozen=True)
class Layout:
    """A data set on disk.

    Attributes:
        name: what people call it.
        reader: its class in ``perception.datasets.readers``.
        splits: what its ``split`` may be, the usual ones first.
        found: whether a folder is one.
    """

    name: str
    reader: str
    splits: tuple[str, ...]
    found: Callable[[Path], bool]

    def open(self, root: Path, split: str) -> Scans:
        """The samples of one split; the errors are those of the reader."""
        from perception.datasets import readers

        reader = getattr(readers, self.reader)
        tables = None if self.reader != "NuScenes" else _foreign_tables(root)
        if tables is None:
            return reader(root, split)
        names = [entry["name"] for entry in json.loads((tables / "category.json").read_text())]
        version = str(tables.relative_to(root))
        return reader(root, split, version=version, categories={n: n for n in names})


def _foreign_tables(root: Path) -> Path | None:
    """nuScenes' tables of another data set, Lyft's: of another version, perhaps a folder deeper."""
    if _any(root, "v1.0-*/sample_data.json"):
        return None
    found = [*root.glob("v1.*/sample_data.json"), *root.glob("v1.*/v1.*/sample_data.json")]
    return found[0].parent if found else None


def _any(root: Path, *patterns: str) -> bool:
    return any(next(root.glob(pattern), None) is not None for pattern in patterns)


def _drives(root: Path, part: str) -> bool:
    return _any(root, f"sequences/*/{part}", f"dataset/sequences/*/{part}")


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "nuScenes",
        "NuScenes",
        ("train", "val", "test", "all"),
        lambda root: _any(root, "v1.*/sample_data.json", "v1.*/v1.*/sample_data.json"),
    ),
    Layout(
        "Argoverse 2 sensor",
        "Argoverse2",
        ("train", "val", "test"),
        lambda root: _any(
            root,
            "city_SE3_egovehicle.feather",
            "*/city_SE3_egovehicle.feather",
            "train/*/city_SE3_egovehicle.feather",
            "val/*/city_SE3_egovehicle.feather",
            "test/*/sensors/lidar",
        ),
    ),
    Layout(
        "SemanticKITTI",
        "SemanticKitti",
        ("train", "val", "test"),
        lambda root: _drives(root, "labels"),
    ),
    Layout(
        "KITTI odometry", "KittiOdometry", ("train", "test"), lambda root: _drives(root, "velodyne")
    ),
    Layout(
        "KITTI object",
        "KittiObject",
        ("train", "val", "trainval", "test"),
        lambda root: _any(root, "training/velodyne", "testing/velodyne"),
    ),
    Layout(
        "ScanNet",
        "ScanNet",
        ("train", "val", "test", "all"),
        lambda root: _any(
            root,
            "scans/scene????_??",
            "scans_test/scene????_??",
            "scene????_??/scene*_vh_clean_2.ply",
            "points/scene????_??.bin",
        ),
    ),
    Layout(
        "S3DIS",
        "S3DIS",
        ("train", "val", "all"),
        lambda root: _any(root, "Area_[1-6]/*/Annotations", "points/Area_[1-6]_*.bin"),
    ),
)


def layout_at(root: Path) -> Layout | None:
    """The data set whose folder this is; None for other folders, such as one's own data."""
    if not root.is_dir():
        return None
    return next((layout for layout in LAYOUTS if layout.found(root)), None)


def layouts_below(root: Path) -> list[tuple[Path, str]]:
    """Folders directly below one that are data sets, posed images or hold point files, and as what."""
    from perception.datasets.posed.guess import layout_of
    from perception.datasets.readers.custom import holds_points

    found = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        layout = layout_at(folder)
        if layout is not None:
            found.append((folder, layout.name))
        elif layout_of(folder):
            found.append((folder, "posed images"))
        elif holds_points(folder):
            found.append((folder, "point files"))
    return found
