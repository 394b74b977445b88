"""S3DIS (Stanford large-scale 3D indoor spaces): 271 rooms of six areas with 13 classes.

On disk, as downloaded (``Stanford3dDataset_v1.2`` or its aligned version)::

    root/Area_1/office_1/office_1.txt                x y z r g b, one point a line
    root/Area_1/office_1/Annotations/chair_1.txt     the same, the points of one object

or in mmdetection3d's prepared form (``points/Area_1_office_1.bin``, ``semantic_mask/``,
``instance_mask/``).

The text of a room is parsed once and cached as ``.npz``, 20 bytes a point
(:mod:`~perception.datasets.readers.index` says where). Some released files hold a stray control
character inside a number (``Area_5/hallway_6/Annotations/ceiling_1.txt``): a line where it stands
for the space between two numbers is mended, any other such line is left out, with a warning.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.index import Arrays, cached, progress
from perception.datasets.readers.indoor import instance_boxes, prepared_names, prepared_room
from perception.datasets.sample import Sample
from perception.io import FormatError, PointCloud

__all__ = ["S3DIS"]

# Names and colours: https://github.com/charlesq34/pointnet, sem_seg/indoor3d_util.py.
TABLE: Final[dict[str, tuple[int, int, int]]] = {
    "ceiling": (0, 255, 0),
    "floor": (0, 0, 255),
    "wall": (0, 255, 255),
    "beam": (255, 255, 0),
    "column": (255, 0, 255),
    "window": (100, 100, 255),
    "door": (200, 200, 100),
    "table": (170, 120, 200),
    "chair": (255, 0, 0),
    "sofa": (200, 100, 100),
    "bookcase": (10, 200, 100),
    "board": (200, 200, 200),
    "clutter": (90, 90, 90),
}
NAMES: Final = tuple(TABLE)
THINGS: Final = ("table", "chair", "sofa", "bookcase", "board")
AREAS = (1, 2, 3, 4, 5, 6)
SPLITS = ("train", "val", "all")
OBJECT = re.compile(r"([A-Za-z]+)_\d+\.txt")  # not "wall_3 (1).txt", a second copy
ROOM = re.compile(r"Area_([1-6])_(.+)")
LINE = "expected lines of six numbers: x y z red green blue"
AGAIN = "download it again"


class S3DIS:
    """The rooms of S3DIS, one sample a room, named ``Area_1/office_1``.

    Labels are the 13 classes; objects of other names (``stairs``) are clutter, as everybody has
    it. Instances are the annotated objects. Boxes are those of the five kinds of furniture that
    are detected on this data, parallel to the axes.

    Args:
        root: the folder that holds ``Area_1`` … ``Area_6`` (some of them), or the prepared form.
        split: ``"val"`` is ``validation_area``, ``"train"`` the other areas, ``"all"`` both.
        validation_area: 5 in most publications; 1 … 6 in turn for the six-fold average.

    Raises:
        FileNotFoundError: the folder holds no area, or none of the split.
        ValueError: the split or area is unknown.
    """

    classes: tuple[str, ...] = NAMES
    colors: NDArray[np.uint8] = np.array(list(TABLE.values()), np.uint8)
    box_classes: tuple[str, ...] = THINGS

    def __init__(
        self,
        root: str | PathLike[str],
        split: str = "train",
        *,
        validation_area: int = 5,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"S3DIS: split {split!r} is none of {', '.join(SPLITS)}")
        if validation_area not in AREAS:
            raise ValueError(f"S3DIS: validation_area {validation_area!r} is none of 1 ... 6")
        self.root, self.split, self.validation_area = Path(root), split, validation_area
        rooms = _rooms(self.root)
        self._prepared = not rooms
        if self._prepared:
            matches = [match for match in map(ROOM.fullmatch, prepared_names(self.root)) if match]
            rooms = [f"Area_{match[1]}/{match[2]}" for match in matches]
        if not rooms:
            raise FileNotFoundError(
                f"{self.root}: holds no S3DIS room; expected Area_1/office_1/Annotations/"
                "chair_1.txt, or points/Area_1_office_1.bin"
            )
        mine = f"Area_{validation_area}/"
        self.names: Sequence[str] = tuple(
            name for name in rooms if split == "all" or name.startswith(mine) == (split == "val")
        )
        if not self.names:
            areas = ", ".join(sorted({name.split("/")[0] for name in rooms}))
            raise FileNotFoundError(
                f"{self.root}: holds only {areas}, nothing of split {split!r} with "
                f"validation_area={validation_area}; download the rest or take split='all'"
            )
        self.sequences: Sequence[range] = [range(i, i + 1) for i in range(len(self.names))]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """One room; parsed from text when it comes for the first time.

        Raises:
            FormatError: a file is damaged.
        """
        name = self.names[index]
        labels: NDArray[np.uint8] | None
        instances: NDArray[np.int32] | None
        if self._prepared:
            plain = name.replace("/", "_", 1)
            cloud, raw, instances = prepared_room(self.root, plain)
            labels = None
            if raw is not None:
                if len(raw) and not 0 <= raw.min() <= raw.max() < len(NAMES):
                    raise FormatError(
                        self.root / "semantic_mask" / f"{plain}.bin",
                        f"has class ids {raw.min()} .. {raw.max()}",
                        "expected 0 .. 12; prepare it again",
                    )
                labels = raw.astype(np.uint8)
        else:
            points, colours, labels, instances = self._room(name)
            attributes = dict(zip(("red", "green", "blue"), colours.T.copy(), strict=True))
            cloud = PointCloud(points, attributes, frame="world")
            if not len(labels):
                labels = instances = None
        table = np.full(256, -1)
        table[[NAMES.index(thing) for thing in THINGS]] = np.arange(len(THINGS))
        boxes = instance_boxes(cloud.points, labels, instances, table)
        return Sample(cloud, labels, instances, boxes, name=name)

    def prepare(self) -> None:
        """Parse every room that is not cached yet, with a progress bar; may be left out."""
        with progress(len(self.names), "S3DIS: text to npz", "room") as bar:
            for name in self.names if not self._prepared else ():
                self._room(name)
                bar.update()

    def _room(self, name: str) -> _Room:
        folder = self.root / name
        files = sorted(
            file for file in (folder / "Annotations").glob("*.txt") if OBJECT.fullmatch(file.name)
        ) or [folder / f"{folder.name}.txt"]

        def build() -> Arrays:
            return dict(zip(PARTS, _parse(files), strict=True))

        arrays = cached("s3dis-1", self.root, files, build, options=name)
        return arrays["points"], arrays["colours"], arrays["labels"], arrays["instances"]


PARTS = ("points", "colours", "labels", "instances")
_Room = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]


def _rooms(root: Path) -> list[str]:
    """``Area_1/office_1``, … of the raw layout, sorted."""
    found = []
    for area in AREAS:
        for folder in sorted((root / f"Area_{area}").glob("*")):
            text = folder / f"{folder.name}.txt"
            if folder.is_dir() and ((folder / "Annotations").is_dir() or text.is_file()):
                found.append(f"Area_{area}/{folder.name}")
    return found


def _parse(files: list[Path]) -> _Room:
    """Points, colours, labels and instances of the files of a room's objects.

    Without annotations (the room's one file) labels and instances are empty.
    """
    tables, labels, instances = [], [], []
    for number, file in enumerate(files, start=1):
        table = _table(file)
        tables.append(table)
        kind = OBJECT.fullmatch(file.name)
        if kind and file.parent.name == "Annotations":
            name = kind[1] if kind[1] in TABLE else "clutter"
            labels.append(np.full(len(table), NAMES.index(name), np.uint8))
            instances.append(np.full(len(table), number, np.int32))
    rows = np.concatenate(tables)
    if not len(rows):
        raise FormatError(files[0], "holds no point", AGAIN)
    return (
        rows[:, :3].astype(np.float32),
        np.clip(rows[:, 3:], 0, 255).astype(np.uint8),
        np.concatenate([np.zeros(0, np.uint8), *labels]),
        np.concatenate([np.zeros(0, np.int32), *instances]),
    )


def _table(file: Path) -> NDArray[np.float64]:
    """The rows ``[N, 6]`` of a file."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such file; {AGAIN}") from None
    except OSError as error:
        raise FormatError(file, f"cannot be opened ({error})", "check its rights") from None
    if not data.strip():
        raise FormatError(file, "is empty", AGAIN)
    try:
        table = _numbers(data)
    except (ValueError, UnicodeDecodeError):
        table = _mended(file, data)
    if not np.isfinite(table).all():
        raise FormatError(file, "holds numbers that are not finite", AGAIN)
    return table


def _numbers(data: bytes) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = np.loadtxt(io.BytesIO(data), dtype=np.float64, ndmin=2, comments=None)
    if table.shape[1] != 6:
        raise ValueError(f"{table.shape[1]} columns")
    return table


def _mended(file: Path, data: bytes) -> NDArray[np.float64]:
    """The rows of a file with stray control characters.

    Raises:
        FormatError: a line is broken in another way.
    """
    kept, lost = [], 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        plain = bytes(byte if byte >= 32 or byte in b"\t\r" else 32 for byte in line)
        words = plain.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) == 6:
            kept.append(values)
        elif plain != line:
            lost += 1  # which digit stood there nobody knows
        else:
            text = line[:60].decode("ascii", errors="replace")
            raise FormatError(file, f"has the line {number} {text!r}", f"{LINE}; {AGAIN}")
    if not kept:
        raise FormatError(file, "holds no line of points", LINE)
    warnings.warn(
        f"{file}: mended stray control characters" + (f", left out {lost} points" if lost else ""),
        stacklevel=2,
    )
    return np.array(kept)
