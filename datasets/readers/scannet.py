"""ScanNet v2 (http://www.scan-net.org): 1,613 scanned rooms with 20 classes.

On disk, as downloaded::

    root/scannetv2_train.txt, _val.txt, _test.txt     the official lists, one scene a line
    root/scans/scene0000_00/scene0000_00_vh_clean_2.ply             points and colours
                            scene0000_00_vh_clean_2.labels.ply      classes (nyu40 ids)
                            scene0000_00_vh_clean_2.0.010000.segs.json and
                            scene0000_00.aggregation.json           instances
                            scene0000_00.txt                        axis alignment
    root/scans_test/scene0707_00/...                                points only

or in mmdetection3d's prepared form (``points/``, ``semantic_mask/``, ``instance_mask/``).
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.indoor import instance_boxes, prepared_names, prepared_room
from perception.datasets.sample import IGNORE, Sample
from perception.geometry import Boxes3D, as_pose, transform
from perception.io import FormatError, PointCloud, read

__all__ = ["ScanNet"]

# nyu40 id, name, colour of the benchmark's 20 classes
# (https://github.com/ScanNet/ScanNet: BenchmarkScripts/3d_evaluation, util.create_color_palette).
TABLE: Final[tuple[tuple[int, str, tuple[int, int, int]], ...]] = (
    (1, "wall", (174, 199, 232)),
    (2, "floor", (152, 223, 138)),
    (3, "cabinet", (31, 119, 180)),
    (4, "bed", (255, 187, 120)),
    (5, "chair", (188, 189, 34)),
    (6, "sofa", (140, 86, 75)),
    (7, "table", (255, 152, 150)),
    (8, "door", (214, 39, 40)),
    (9, "window", (197, 176, 213)),
    (10, "bookshelf", (148, 103, 189)),
    (11, "picture", (196, 156, 148)),
    (12, "counter", (23, 190, 207)),
    (14, "desk", (247, 182, 210)),
    (16, "curtain", (219, 219, 141)),
    (24, "refrigerator", (255, 127, 14)),
    (28, "shower curtain", (158, 218, 229)),
    (33, "toilet", (44, 160, 44)),
    (34, "sink", (112, 128, 144)),
    (36, "bathtub", (227, 119, 194)),
    (39, "other furniture", (82, 84, 163)),
)
NYU40 = 40  # the largest id
LISTS = "https://github.com/ScanNet/ScanNet/tree/master/Tasks/Benchmark"
SPLITS = ("train", "val", "test", "all")
SCENE = re.compile(r"scene\d{4}_\d{2}")
AGAIN = "copy or download it again"


class ScanNet:
    """ScanNet's rooms, one sample a scene.

    Labels are the benchmark's 20 classes, everything else is :data:`IGNORE`. Boxes are those of
    the instances of the 18 classes that are neither wall nor floor, parallel to the axes.

    Args:
        root: the folder that holds ``scans/`` (or the scenes themselves, or the prepared form).
        split: ``"train"``, ``"val"``, ``"test"`` by the official lists, which are looked for in
            ``root``, ``root/meta_data`` and ``root/splits``; ``"all"`` takes every scene there is.
        align: turn a scene so that its walls run along the axes, where its ``.txt`` says how.

    Raises:
        FileNotFoundError: the folder holds no scene, or the list of the split is missing.
        ValueError: the split is unknown.

    A scene of a list that is not on this disk is left out with one warning.
    """

    classes: tuple[str, ...] = tuple(name for _, name, _ in TABLE)
    colors: NDArray[np.uint8] = np.array([color for *_, color in TABLE], np.uint8)
    box_classes: tuple[str, ...] = tuple(name for _, name, _ in TABLE[2:])

    def __init__(
        self, root: str | PathLike[str], split: str = "train", *, align: bool = True
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"ScanNet: split {split!r} is none of {', '.join(SPLITS)}")
        self.root, self.split, self.align = Path(root), split, align
        self._folders = _scene_folders(self.root)
        present = sorted(self._folders) or prepared_names(self.root)
        if not present:
            raise FileNotFoundError(
                f"{self.root}: holds no ScanNet scene; expected scans/scene0000_00/"
                "scene0000_00_vh_clean_2.ply, or points/scene0000_00.bin"
            )
        self.names: Sequence[str] = tuple(present)
        if split != "all":
            wanted = _listed(self.root, split)
            self.names = tuple(name for name in present if name in wanted)
            gone = sorted(wanted.difference(present))
            if not self.names:
                raise FileNotFoundError(
                    f"{self.root}: holds none of the {len(wanted)} scenes of split {split!r}; "
                    f"download them, or read the {len(present)} that are there with split='all'"
                )
            if gone:
                warnings.warn(
                    f"{self.root}: {len(gone)} of {len(wanted)} scenes of split {split!r} are not "
                    f"here, first {gone[0]}",
                    stacklevel=2,
                )
        self.sequences = [range(i, i + 1) for i in range(len(self.names))]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """One scene.

        Raises:
            FormatError: a file is damaged or does not fit the others.
        """
        name = self.names[index]
        if not self._folders:
            cloud, raw, instances = prepared_room(self.root, name)
            source = self.root / "semantic_mask" / f"{name}.bin"
            labels = None if raw is None else _classes_of(source, raw)
            return Sample(
                cloud, labels, instances, self._boxes(cloud, labels, instances), name=name
            )
        stem = self._folders[name] / name
        file = Path(f"{stem}_vh_clean_2.ply")
        cloud = read(file)
        colours = {k: v for k, v in cloud.attributes.items() if k in ("red", "green", "blue")}
        points = cloud.points
        alignment = _alignment(Path(f"{stem}.txt")) if self.align else None
        if alignment is not None:
            points = transform(alignment, points).astype(np.float32)
        valid, rows = cloud.valid, len(cloud) if cloud.valid is None else len(cloud.valid)
        cloud = PointCloud(points, colours, frame="world", valid=valid)
        labels = _read_labels(Path(f"{stem}_vh_clean_2.labels.ply"), rows)
        instances = _read_instances(stem, rows)
        if valid is not None:
            labels = None if labels is None else labels[valid]
            instances = None if instances is None else instances[valid]
        return Sample(cloud, labels, instances, self._boxes(cloud, labels, instances), name=name)

    def _boxes(
        self,
        cloud: PointCloud,
        labels: NDArray[np.uint8] | None,
        instances: NDArray[np.int32] | None,
    ) -> Boxes3D | None:
        table = np.full(256, -1)
        table[2:20] = np.arange(18)
        return instance_boxes(cloud.points, labels, instances, table)


def _scene_folders(root: Path) -> dict[str, Path]:
    found = {}
    for parent in (root, root / "scans", root / "scans_test"):
        if parent.is_dir():
            for folder in parent.iterdir():
                if SCENE.fullmatch(folder.name) and folder.is_dir():
                    found[folder.name] = folder
    return found


def _listed(root: Path, split: str) -> set[str]:
    name = f"scannetv2_{split}.txt"
    for folder in (root, root / "meta_data", root / "splits"):
        if (folder / name).is_file():
            text = (folder / name).read_text(errors="replace")
            scenes = text.split()
            wrong = next((word for word in scenes if not SCENE.fullmatch(word)), None)
            if wrong is not None or not scenes:
                raise FormatError(
                    folder / name,
                    f"names {wrong[:40]!r}, no scene" if wrong else "is empty",
                    f"take it from {LISTS}",
                )
            return set(scenes)
    raise FileNotFoundError(
        f"{root / name}: no such list; put it there from {LISTS}, or read all scenes with split='all'"
    )


def _classes_of(file: Path, nyu40: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The 20 classes of nyu40 ids ``[N]``."""
    if len(nyu40) and not 0 <= nyu40.min() <= nyu40.max() <= NYU40:
        wrong = nyu40[(nyu40 < 0) | (nyu40 > NYU40)][0]
        raise FormatError(
            file,
            f"has the class {wrong}, nyu40 ends at {NYU40}",
            "take the labels of ScanNet v2, not the raw category ids",
        )
    table = np.full(NYU40 + 1, IGNORE, np.uint8)
    table[[number for number, *_ in TABLE]] = np.arange(len(TABLE))
    return table[nyu40]


def _read_labels(file: Path, count: int) -> NDArray[np.uint8] | None:
    """Classes ``[count]`` of a ``.labels.ply``; None where there is none (test scenes)."""
    if not file.is_file():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about coordinates that are not finite: only labels count
        cloud = read(file)
    raw = cloud.attributes.get("label")
    if raw is None or raw.dtype.kind not in "iu":
        raise FormatError(file, "has no integer property 'label'", AGAIN)
    if cloud.valid is not None:
        rows = np.zeros(len(cloud.valid), raw.dtype)
        rows[cloud.valid] = raw
        raw = rows
    if len(raw) != count:
        raise FormatError(file, f"labels {len(raw)} points, the scene has {count}", AGAIN)
    return _classes_of(file, raw)


def _read_instances(stem: Path, count: int) -> NDArray[np.int32] | None:
    """Objects ``[count]``, 1 and up, 0 = none; None where a file is missing."""
    segments_file = Path(f"{stem}_vh_clean_2.0.010000.segs.json")
    groups_file = Path(f"{stem}.aggregation.json")
    if not segments_file.is_file() or not groups_file.is_file():
        return None
    segments = np.array(_field(segments_file, "segIndices"))
    if segments.shape != (count,) or segments.dtype.kind not in "iu":
        raise FormatError(
            segments_file, f"has segments {list(segments.shape)} for {count} points", AGAIN
        )
    ids, place = np.unique(segments, return_inverse=True)
    object_of = np.zeros(len(ids), np.int32)
    for group in _field(groups_file, "segGroups"):
        try:
            number = int(group["objectId"]) + 1
            members = np.array(group["segments"], np.int64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(groups_file, f"has a broken group ({error!r})", AGAIN) from None
        if not 0 < number < 2**31 or members.ndim != 1:
            raise FormatError(groups_file, f"has a broken object {number - 1}", AGAIN)
        object_of[np.isin(ids, members)] = number
    return object_of[place]


def _field(file: Path, key: str) -> list[Any]:
    try:
        value = json.loads(file.read_text())[key]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise FormatError(file, f"has no list {key!r} ({error})", AGAIN) from None
    if not isinstance(value, list):
        raise FormatError(file, f"has no list {key!r}", AGAIN)
    return value


def _alignment(file: Path) -> NDArray[np.float64] | None:
    """The matrix of the line ``axisAlignment = ...``; None where there is none."""
    if not file.is_file():
        return None
    for line in file.read_text(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                numbers = np.array([float(word) for word in value.split()])
                return as_pose(numbers.reshape(4, 4), "axisAlignment")
            except ValueError as error:
                raise FormatError(file, f"has a broken axisAlignment ({error})", AGAIN) from None
    return None
