"""Your own data: a folder of point files, with as many annotations as there are.

::

    root/dataset.yaml              optional: names, colours, splits (see DESCRIPTION_KEYS)
    root/points/000000.pcd         any format of perception.io.read
    root/labels/000000.label       optional: any format of perception.io.read_labels
    root/boxes/000000.json         optional: any format of perception.io.boxes.read_boxes
    root/poses.txt                 optional: KITTI's (12 numbers a line) or TUM's (8 numbers)
    root/train.txt, val.txt        optional: names of a split, one a line (or in ImageSets/)

Several drives are several such folders below the root (``root/drive_a/points/...``); ``velodyne``
or ``lidar`` is as good a name as ``points``. Point files may also lie directly in a drive's folder;
then ``NAME.label`` and ``NAME.json`` beside them are their labels and boxes. docs/custom-data.md is
the guide.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from perception.datasets.readers.kitti_odometry import read_poses
from perception.datasets.readers.rotations import pose_matrices
from perception.datasets.readers.semantic_kitti import CLASSES, COLORS, RAW_CLASSES
from perception.datasets.sample import IGNORE, Sample
from perception.geometry import Boxes3D
from perception.io import FormatError, Labels, PointCloud, read, read_labels
from perception.io.boxes import read_boxes
from perception.io.files import suffix_of
from perception.io.labels import NO_CLASS

__all__ = ["DESCRIPTION_KEYS", "Custom", "distinct_colors", "read_trajectory", "suggest"]

#: What ``dataset.yaml`` may say.
DESCRIPTION_KEYS: Final[dict[str, str]] = {
    "classes": "names of the point classes: a list (the position is the id in the label files), or "
    "name: id or name: [ids]",
    "colors": "name: [red, green, blue], of as many classes as you like",
    "ignore": "ids in the label files that count as no class: a list, or 'others' for all that "
    "no class has",
    "box_classes": "names of the box classes: a list, or name: [other spellings]",
    "ignore_boxes": "names of boxes to leave out: a list, or 'others'",
    "layout": "what headerless .bin files hold: kitti, nuscenes, nuscenes-fp16, xyz, xyzrgb",
    "split": "name of a split: list of names of scans or patterns such as 'drive_a/*'",
}
FILE = "dataset.yaml"
POSES = ("poses.txt", "poses.tum", "trajectory.txt")
LABEL_SUFFIXES = (".label", ".npy", ".txt", ".csv")
BOX_SUFFIXES = (".json", ".txt", ".npy")
# A drive's points lie in the first of these, or loose in its folder; the others hold none.
POINT_FOLDERS = ("points", "velodyne", "lidar")
RESERVED = ("labels", "boxes", "images", "ImageSets", "calib", "label_2", "cache")
TEXTS = (".txt", ".csv")
NO_POINTS = {*POSES, "train.txt", "val.txt", "test.txt", "calib.txt", "times.txt"}
DEPTH = 4  # folders below the root that are searched for drives
GUIDE = "docs/custom-data.md has a template"


@dataclass(frozen=True)
class _Scan:
    name: str
    points: Path
    labels: Path | None
    boxes: Path | None
    drive: int
    frame: int


class Custom:
    """A folder of point files with optional labels, boxes and poses; see the module.

    Without anything but point files it yields clouds. Labels and boxes need their names in
    ``dataset.yaml``; ``perception doctor ROOT`` prints a first one.

    Args:
        root: the folder.
        split: ``"all"``, or a split that ``dataset.yaml`` or ``SPLIT.txt`` lists.
        description: what ``dataset.yaml`` would say, instead of it.

    Raises:
        FileNotFoundError: no such folder, or no point file in it.
        FormatError: ``dataset.yaml``, a list or a file of poses is wrong.
        ValueError: the split is not defined.
    """

    def __init__(
        self,
        root: str | PathLike[str],
        split: str = "all",
        *,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        self.root, self.split = Path(root), split
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such folder; check the path")
        said = _description(self.root / FILE) if description is None else description
        self._layout: str | None = said.get("layout")
        self.classes, self._class_of = _classes(self.root / FILE, said)
        self.colors: NDArray[np.uint8] = _colors(self.root / FILE, said, self.classes)
        self.box_classes, self._box_of = _box_classes(self.root / FILE, said)
        drives = _drives(self.root)
        if not drives:
            raise FileNotFoundError(
                f"{self.root}: holds no point file; expected points/NAME.pcd (or .bin, .ply, .las, "
                f".laz, .npy, .npz, .xyz, .csv, .txt); {GUIDE}"
            )
        scans: list[_Scan] = []
        self._poses: list[tuple[NDArray[np.float64] | None, NDArray[np.float64]] | None] = []
        for number, drive in enumerate(drives):
            found = _scans(self.root, drive, number)
            scans += found
            self._poses.append(_drive_poses(drive, len(found)))
        self._check_named(scans)
        wanted = _split(self.root, said, split, [scan.name for scan in scans])
        self._scans = [scan for scan in scans if scan.name in wanted]
        self.names: Sequence[str] = tuple(scan.name for scan in self._scans)
        self.sequences: Sequence[range] = self._sequences()

    def _check_named(self, scans: list[_Scan]) -> None:
        for what, key in (("labels", "classes"), ("boxes", "box_classes")):
            first = next((file for s in scans if (file := getattr(s, what)) is not None), None)
            if first is not None and not getattr(self, key):
                raise FormatError(
                    self.root / FILE,
                    f"does not name the {key} of {first.relative_to(self.root)}",
                    f"write it: `perception doctor {self.root}` prints a first one",
                )

    def _sequences(self) -> list[range]:
        """Runs of consecutive frames of a drive with poses; other scans stand alone."""
        starts = [
            i
            for i, scan in enumerate(self._scans)
            if i == 0
            or self._poses[scan.drive] is None
            or (self._scans[i - 1].drive, self._scans[i - 1].frame) != (scan.drive, scan.frame - 1)
        ]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(self._scans)], strict=True)]

    def __len__(self) -> int:
        return len(self._scans)

    def __getitem__(self, index: int) -> Sample:
        """One scan.

        Raises:
            FormatError: a file is damaged, labels another number of points, or has a class that
                ``dataset.yaml`` does not know.
        """
        scan = self._scans[index]
        binary = suffix_of(scan.points) in (".bin", ".pcd.bin")
        cloud = read(scan.points, layout=self._layout if binary else None)
        labels, instances = self._labels(scan, cloud)
        pose = time = None
        trajectory = self._poses[scan.drive]
        if trajectory is not None:
            times, poses = trajectory
            pose = poses[scan.frame]
            time = None if times is None else float(times[scan.frame])
        time = cloud.time if time is None else time
        boxes = None if scan.boxes is None else self._boxes(scan.boxes)
        return Sample(cloud, labels, instances, boxes, pose, scan.name, time=time)

    def _labels(
        self, scan: _Scan, cloud: PointCloud
    ) -> tuple[NDArray[np.uint8] | None, NDArray[np.int32] | None]:
        if not self.classes:
            return None, None
        if scan.labels is not None:
            rows = len(cloud) if cloud.valid is None else len(cloud.valid)
            raw = read_labels(scan.labels, rows)
            if cloud.valid is not None:
                raw = Labels(raw.semantic[cloud.valid], raw.instance[cloud.valid])
            instance = raw.instance.astype(np.int32) if raw.instance.any() else None
            return self._known(scan.labels, raw.semantic), instance
        column = cloud.attributes.get("label")
        if column is None or column.ndim != 1:
            return None, None
        whole = np.nan_to_num(column.astype(np.float64), nan=-1.0, posinf=-2.0, neginf=-2.0)
        if (whole != np.floor(whole)).any() or whole.min() < -1 or whole.max() > NO_CLASS:
            raise FormatError(
                scan.points, "has a column 'label' that is not whole numbers", "rename the column"
            )
        ids = np.where(whole < 0, NO_CLASS, whole).astype(np.uint16)
        given = cloud.attributes.get("instance")
        instance = None if given is None or given.ndim != 1 else given.astype(np.int32)
        return self._known(scan.points, ids), instance

    def _known(self, file: Path, raw: NDArray[np.uint16]) -> NDArray[np.uint8]:
        labels = self._class_of[raw]
        strange = labels < 0
        if strange.any():
            ids, counts = np.unique(raw[strange], return_counts=True)
            raise FormatError(
                file,
                f"has the unknown class {ids[counts.argmax()]} ({counts.max()} points)",
                f"add it to classes or to ignore in {self.root / FILE}",
            )
        return labels.astype(np.uint8)

    def _boxes(self, file: Path) -> Boxes3D:
        boxes, names = read_boxes(file)
        if not names:
            if len(boxes) and not 0 <= boxes.labels.min() <= boxes.labels.max() < len(
                self.box_classes
            ):
                raise FormatError(
                    file,
                    f"has box labels up to {boxes.labels.max()}",
                    f"name them in box_classes in {self.root / FILE}",
                )
            return boxes
        table = np.array([self._box_of.get(name, self._box_of.get("", -2)) for name in names])
        labels = table[boxes.labels]
        if (labels == -2).any():
            name = names[boxes.labels[(labels == -2).argmax()]]
            raise FormatError(
                file,
                f"has a box of the unknown class {name!r}",
                f"add it to box_classes or to ignore_boxes in {self.root / FILE}",
            )
        kept = labels >= 0
        chosen = boxes[kept]
        return Boxes3D(chosen.boxes, labels[kept], chosen.velocity, chosen.track_ids)


def suggest(root: str | PathLike[str], files: int = 100) -> dict[str, Any]:
    """A first ``dataset.yaml``: the ids and names that occur in up to so many label and box files.

    Ids that are all SemanticKITTI's get its names.

    Raises:
        FormatError: a label or box file is damaged.
    """
    root = Path(root)
    scans = [s for i, drive in enumerate(_drives(root)) for s in _scans(root, drive, i)]
    ids: set[int] = set()
    for file in [scan.labels for scan in scans if scan.labels is not None][:files]:
        ids |= set(np.unique(read_labels(file).semantic).tolist())
    ids.discard(NO_CLASS)
    names: dict[str, None] = {}
    numbers = 0
    for file in [scan.boxes for scan in scans if scan.boxes is not None][:files]:
        boxes, named = read_boxes(file)
        names |= dict.fromkeys(named)
        if not named:
            numbers = max(numbers, int(boxes.labels.max(initial=-1)) + 1)
    said: dict[str, Any] = {}
    if ids <= RAW_CLASSES.keys() and max(ids, default=0) >= 40:  # 40 is the road
        of: dict[str, list[int]] = {}
        for number in sorted(ids):
            of.setdefault(RAW_CLASSES[number][1], []).append(number)
        said["ignore"] = of.pop("", [])
        said["classes"] = of
        said["colors"] = {name: COLORS[CLASSES.index(name)].tolist() for name in of}
    elif ids:
        said["classes"] = {f"class {i}": i for i in sorted(ids)}
    if names or numbers:
        said["box_classes"] = sorted(names) or [f"class {i}" for i in range(numbers)]
    return said


def natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts ``frame_2`` before ``frame_10``."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", path.name)
        if part
    ]


def distinct_colors(count: int) -> NDArray[np.uint8]:
    """``[count, 3]`` colours; hues go round by the golden ratio."""
    hues = [(i * 0.618034) % 1.0 for i in range(count)]
    rows = [colorsys.hsv_to_rgb(hue, (0.75, 0.45)[i % 2], 1.0) for i, hue in enumerate(hues)]
    return (np.array(rows).reshape(-1, 3) * 255).round().astype(np.uint8)


def read_trajectory(
    path: str | PathLike[str],
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Times ``[N]`` or None, and poses ``[N, 4, 4]``, of a KITTI or TUM file.

    KITTI: 12 numbers a line, the rows of world_from_sensor. TUM: time, x, y, z and the quaternion
    qx, qy, qz, qw (https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats).

    Raises:
        FormatError: neither of them, or no rigid motions.
    """
    file = Path(path)
    try:
        table = np.loadtxt(file, dtype=np.float64, ndmin=2, comments="#")
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise FormatError(file, f"is no table of numbers ({error})", "copy it again") from None
    if table.shape[1] == 12:
        return None, read_poses(file)
    if table.shape[1] != 8 or not np.isfinite(table).all():
        raise FormatError(
            file,
            f"has {table.shape[1]} columns",
            "expected 12 finite numbers a line (KITTI, 3x4) or 8 (TUM: time x y z qx qy qz qw)",
        )
    try:
        return table[:, 0], pose_matrices(table[:, 1:4], table[:, [7, 4, 5, 6]])
    except ValueError as error:
        raise FormatError(file, f"has a broken rotation ({error})", "copy it again") from None


def _drive_poses(
    drive: Path, count: int
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]] | None:
    file = next((drive / name for name in POSES if (drive / name).is_file()), None)
    if file is None:
        return None
    times, poses = read_trajectory(file)
    if len(poses) != count:
        raise FormatError(
            file,
            f"has {len(poses)} poses for {count} scans",
            "line i belongs to scan i in the order of the names; cut or complete it",
        )
    return times, poses


def is_points(file: Path) -> bool:
    """Whether a file's name is that of a point cloud."""
    return bool(suffix_of(file)) and file.is_file() and not file.name.startswith(".")


def holds_points(folder: Path) -> bool:
    """Whether there is a point file in a folder or below it."""
    return bool(_drives(folder))


def _drives(folder: Path, depth: int = DEPTH) -> list[Path]:
    """The folders at or below one that hold point files, or a folder ``points`` of them.

    Text is taken for points only where there is nothing else: it may as well be a list.
    """
    loose = _loose(folder)
    if _point_folder(folder) is not None or any(suffix_of(f) not in TEXTS for f in loose):
        return [folder]
    found: list[Path] = []
    for entry in sorted(folder.iterdir(), key=natural) if depth else ():
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in RESERVED:
            found += _drives(entry, depth - 1)
    return found or ([folder] if loose else [])


def _point_folder(drive: Path) -> Path | None:
    return next((drive / name for name in POINT_FOLDERS if (drive / name).is_dir()), None)


def _loose(folder: Path) -> list[Path]:
    """Point files directly in a folder."""
    files = [f for f in folder.iterdir() if is_points(f) and f.name not in NO_POINTS]
    clouds = [f for f in files if suffix_of(f) not in TEXTS]
    return sorted(clouds or files, key=natural)


def _scans(root: Path, drive: Path, number: int) -> list[_Scan]:
    folder = _point_folder(drive)
    beside = folder is None
    inside = () if folder is None else filter(is_points, folder.iterdir())
    files = _loose(drive) if beside else sorted(inside, key=natural)
    prefix = "" if drive == root else f"{drive.relative_to(root).as_posix()}/"
    scans: list[_Scan] = []
    taken: dict[str, str] = {}
    for frame, file in enumerate(files):
        stem = file.name[: -len(suffix_of(file))]
        if stem in taken:
            raise FormatError(
                file, f"has the same name as {taken[stem]}", "keep one format of a scan"
            )
        taken[stem] = file.name
        labels = _companion(drive / "labels", stem, LABEL_SUFFIXES)
        boxes = _companion(drive / "boxes", stem, BOX_SUFFIXES)
        if beside:
            labels = labels or _companion(drive, stem, (".label",))
            boxes = boxes or _companion(drive, stem, (".json",))
        scans.append(_Scan(prefix + stem, file, labels, boxes, number, frame))
    return scans


def _companion(folder: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
    return next((f for suffix in suffixes if (f := folder / (stem + suffix)).is_file()), None)


def _description(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError, ValueError) as error:
        raise FormatError(file, f"is no YAML ({error})", GUIDE) from None
    if said is None:
        return {}
    unknown = sorted(set(map(str, said)) - set(DESCRIPTION_KEYS)) if isinstance(said, dict) else []
    if not isinstance(said, dict) or unknown:
        what = f"has the unknown key {unknown[0]!r}" if unknown else "holds no keys"
        raise FormatError(file, what, f"known are {', '.join(DESCRIPTION_KEYS)}")
    if not isinstance(said.get("layout", ""), str):
        raise FormatError(file, "has a layout that is no name", DESCRIPTION_KEYS["layout"])
    return said


def _wrong(file: Path, key: str) -> FormatError:
    return FormatError(file, f"has {key} of another form", f"expected {DESCRIPTION_KEYS[key]}")


def _ids(file: Path, key: str, value: object) -> list[int]:
    ids = []
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, int) or not -1 <= number <= NO_CLASS:
            raise _wrong(file, key)
        ids.append(number % (NO_CLASS + 1))
    return ids


def _classes(file: Path, said: Mapping[str, Any]) -> tuple[tuple[str, ...], NDArray[np.int16]]:
    """Names, and for each id of a label file its class, IGNORE, or −1 where it has none."""
    given, ignored = said.get("classes", []), said.get("ignore", [])
    if isinstance(given, list):
        given = {str(name): i for i, name in enumerate(given)}
    if not isinstance(given, dict) or len(given) >= IGNORE:
        raise _wrong(file, "classes")
    table = np.full(NO_CLASS + 1, IGNORE if ignored == "others" else -1, np.int16)
    table[NO_CLASS] = IGNORE
    if ignored != "others":
        table[_ids(file, "ignore", ignored)] = IGNORE
    seen: dict[int, str] = {}
    for position, (name, value) in enumerate(given.items()):
        for number in _ids(file, "classes", value):
            if number in seen:
                raise FormatError(
                    file, f"gives the id {number} to {seen[number]} and {name}", "give it to one"
                )
            seen[number] = str(name)
            table[number] = position
    return tuple(map(str, given)), table


def _colors(file: Path, said: Mapping[str, Any], classes: tuple[str, ...]) -> NDArray[np.uint8]:
    colors = distinct_colors(len(classes))
    given = said.get("colors", {})
    if not isinstance(given, dict):
        raise _wrong(file, "colors")
    for name, value in given.items():
        good = (
            isinstance(value, list)
            and len(value) == 3
            and all(isinstance(channel, int) and 0 <= channel <= 255 for channel in value)
        )
        if name not in classes or not good:
            raise FormatError(
                file, f"has the colour {name}: {value}", f"expected {DESCRIPTION_KEYS['colors']}"
            )
        colors[classes.index(name)] = value
    return colors


def _box_classes(file: Path, said: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names, and for each name in a box file its class or −1; ``""`` stands for all others."""
    given, ignored = said.get("box_classes", []), said.get("ignore_boxes", [])
    if isinstance(given, list):
        given = {str(name): [] for name in given}
    if not isinstance(given, dict):
        raise _wrong(file, "box_classes")
    if ignored != "others" and not isinstance(ignored, list):
        raise _wrong(file, "ignore_boxes")
    table = {"": -1} if ignored == "others" else {str(name): -1 for name in ignored}
    for position, (name, spellings) in enumerate(given.items()):
        others = spellings if isinstance(spellings, list) else [spellings]
        for spelling in [name, *others]:
            table[str(spelling)] = position
    return tuple(map(str, given)), table


def _split(root: Path, said: Mapping[str, Any], split: str, names: list[str]) -> set[str]:
    if split == "all":
        return set(names)
    parts = said.get("split", {})
    if not isinstance(parts, dict):
        raise _wrong(root / FILE, "split")
    source = root / FILE
    if split in parts:
        wanted = parts[split]
    else:
        lists = [root / f"{split}.txt", root / "ImageSets" / f"{split}.txt"]
        source = next((file for file in lists if file.is_file()), source)
        if source.name == FILE:
            known = [
                "all",
                *map(str, parts),
                *sorted(f.stem for f in root.glob("*.txt") if f.name not in POSES),
            ]
            raise ValueError(
                f"{root}: has no split {split!r} (but {', '.join(known)}); list its scans in "
                f"{split}.txt or under split: in {FILE}"
            )
        wanted = source.read_text(encoding="utf-8", errors="replace").split("\n")
        wanted = [line.strip() for line in wanted if line.strip()]
    if isinstance(wanted, str):
        wanted = [wanted]
    if not isinstance(wanted, list) or not wanted:
        raise _wrong(root / FILE, "split")
    chosen: set[str] = set()
    for pattern in map(str, wanted):
        exact = pattern in names
        found = {pattern} if exact else {n for n in names if fnmatchcase(n, pattern)}
        if not found:
            raise FormatError(
                source,
                f"lists {pattern!r}, which no scan is called",
                f"scans are called {names[0]!r}",
            )
        chosen |= found
    return chosen
