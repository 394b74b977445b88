"""nuScenes with its own tables: https://www.nuscenes.org/nuscenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.datasets.readers.index import Names, cached
from perception.datasets.readers.nuscenes_classes import (
    CATEGORY_TO_DETECTION,
    CATEGORY_TO_LIDARSEG,
    DETECTION_CLASSES,
    LIDARSEG_CLASSES,
    LIDARSEG_COLORS,
    split_scenes,
)
from perception.datasets.readers.nuscenes_tables import TABLES, index_tables
from perception.datasets.readers.rotations import (
    matrices,
    pose_matrices,
    quaternions,
    yaw_back,
)
from perception.datasets.readers.scan_files import coordinates, position, read_records
from perception.datasets.sample import IGNORE, Image, Sample
from perception.geometry import Boxes3D, Camera, invert, transform
from perception.io import FormatError, PointCloud

__all__ = ["NuScenes", "NuScenesBoxes", "boxes_from_nuscenes", "nuscenes_from_boxes"]

_NEAR = 1.0  # metres: returns of the car itself in past sweeps, as the devkit drops them


class NuScenesBoxes(NamedTuple):
    """M boxes in nuScenes' own convention, in the world.

    Attributes:
        centres: ``[M, 3]`` geometric centres, metres.
        sizes: ``[M, 3]`` **width, length**, height, metres.
        rotations: ``[M, 4]`` quaternions w, x, y, z.
        velocities: ``[M, 2]`` m/s, or None.
    """

    centres: NDArray[np.float64]
    sizes: NDArray[np.float64]
    rotations: NDArray[np.float64]
    velocities: NDArray[np.float64] | None = None


def boxes_from_nuscenes(boxes: NuScenesBoxes, pose: ArrayLike) -> NDArray[np.float32]:
    """``[M, 7]`` x, y, z, length, width, height, yaw in the frame that ``pose [4, 4]`` is of.

    Args:
        boxes: M boxes in the world.
        pose: world_from_frame.
    """
    back = invert(np.asarray(pose, np.float64))
    ahead = matrices(boxes.rotations)[:, :, 0] @ back[:3, :3].T
    columns = [
        transform(back, boxes.centres),
        boxes.sizes[:, [1, 0, 2]],
        np.arctan2(ahead[:, 1], ahead[:, 0])[:, None],
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


def nuscenes_from_boxes(boxes: Boxes3D, pose: ArrayLike) -> NuScenesBoxes:
    """Boxes in the world, upright there, for a result file; undoes :func:`boxes_from_nuscenes`.

    Args:
        boxes: M boxes in the frame that ``pose [4, 4]`` (world_from_frame) is of.
    """
    pose = np.asarray(pose, np.float64)
    rows = boxes.boxes.astype(np.float64)
    yaw = yaw_back(pose[:3, :3].T, rows[:, 6])
    velocities = None
    if boxes.velocity is not None:
        velocities = boxes.velocity.astype(np.float64) @ pose[:2, :2].T
    centres = transform(pose, rows[:, :3]).astype(np.float64, copy=False)
    return NuScenesBoxes(centres, rows[:, [4, 3, 5]], quaternions(yaw), velocities)


class NuScenes:
    """Key frames of nuScenes (2 Hz) with past sweeps, boxes, lidarseg labels and cameras.

    ``root`` holds ``v1.0-trainval/*.json`` (or ``v1.0-mini``, ``v1.0-test``), ``samples``, ``sweeps``
    and, for labels, ``lidarseg``. The tables are read once; what reading needs of them is kept in the
    user's cache. Other data sets with such tables (Lyft level 5) can be read with ``version``,
    ``scenes`` and ``categories``.

    **Axes.** nuScenes mounts its LiDAR with x to the right. Here clouds, boxes and cameras are in the
    LiDAR's frame turned by the multiple of 90° about z that brings x nearest to the car's forward, so
    that x is forward and y left as everywhere in this package. ``axes="sensor"`` leaves the sensor's
    own axes, which the devkit and networks released for nuScenes use.

    Args:
        root: the folder.
        split: ``train``, ``val`` or ``test`` by the official lists of scenes (in ``v1.0-mini``: its
            own train and val), or ``all``.
        version: the folder of the tables; None: ``v1.0-test`` for ``test``, else ``v1.0-trainval``,
            else ``v1.0-mini``.
        scenes: names of the scenes to read, instead of a split's.
        sweeps: how many past sweeps (20 Hz) to add to each key frame, moved into its frame; fewer at
            the beginning of a scene. With sweeps the cloud has an attribute ``time``: the lag of a
            point in seconds, 0 for the key frame. Points of past sweeps within a metre of the sensor
            are the car's own and left out.
        boxes: whether to read boxes; the test split has none in any case.
        labels: whether to read lidarseg labels; points of past sweeps are ignored (255).
        cameras: images to attach (``CAM_FRONT``, …); None: those whose folder is there.
        min_points: boxes with fewer LiDAR and radar points are left out; the official evaluation
            uses 1.
        categories: category -> class of boxes, instead of the official mapping; the classes are
            numbered in the order in which they come.
        axes: ``forward`` or ``sensor``.

    Raises:
        FileNotFoundError: a folder, table or file is missing; the message says which.
        FormatError: a table or scan is damaged.
        ValueError: an unknown split, scene, category or camera.
    """

    box_classes: tuple[str, ...] = DETECTION_CLASSES
    classes: tuple[str, ...] = ()
    colors: NDArray[np.uint8] = np.zeros((0, 3), np.uint8)

    def __init__(
        self,
        root: str | PathLike[str],
        split: str = "train",
        *,
        version: str | None = None,
        scenes: Sequence[str] | None = None,
        sweeps: int = 0,
        boxes: bool = True,
        labels: bool = False,
        cameras: Sequence[str] | None = None,
        min_points: int = 0,
        categories: Mapping[str, str] | None = None,
        axes: Literal["forward", "sensor"] = "forward",
    ) -> None:
        if split not in ("train", "val", "test", "all"):
            raise ValueError(f"NuScenes: unknown split {split!r}; known are train, val, test, all")
        if axes not in ("forward", "sensor") or sweeps < 0:
            raise ValueError(f"NuScenes: axes={axes!r}, sweeps={sweeps}; see the documentation")
        self._root = Path(root).expanduser()
        tables = _version(self._root, split, version)
        self.version = tables.name
        sources = [tables / f"{name}.json" for name in (*TABLES, "lidarseg")]
        self._index = cached(
            "nuscenes-1", self._root, sources, lambda: index_tables(tables), options=self.version
        )
        self._frames, self.sequences = self._chosen(split, scenes, tables)
        self.tokens = Names(self._index["frame_token"][self._frames])
        self._sweeps = sweeps
        self._min_points = min_points
        self._boxes = boxes and split != "test"
        if self._boxes:
            self._box_label = self._map_boxes(categories, tables)
        self._labels = labels and split != "test"
        if self._labels:
            self.classes, self.colors = LIDARSEG_CLASSES, LIDARSEG_COLORS
            self._point_label = self._map_points(tables)
        self._cameras = self._find_cameras(cameras)
        self._turns = self._quarter_turns() if axes == "forward" else {}

    # ---- what to read

    def _chosen(
        self, split: str, scenes: Sequence[str] | None, tables: Path
    ) -> tuple[NDArray[np.int64], list[range]]:
        """Key frames of the chosen scenes, and the numbers that they get here."""
        there = [name.decode() for name in self._index["scene_name"].tolist()]
        if scenes is not None:
            unknown = [name for name in scenes if name not in there]
            if unknown:
                raise ValueError(
                    f"NuScenes: unknown scene {unknown[0]!r}; {tables / 'scene.json'} has "
                    f"{', '.join(there[:4])}, ..."
                )
            wanted = frozenset(scenes)
        elif split == "all":
            wanted = frozenset(there)
        else:
            mini = self.version.endswith("mini") and split != "test"
            wanted = split_scenes(f"mini_{split}" if mini else split)
        starts = self._index["scene_start"]
        frames, sequences, names, count = [np.zeros(0, np.int64)], [], [], 0
        for number, name in enumerate(there):
            if name in wanted and starts[number + 1] > starts[number]:
                inside = np.arange(starts[number], starts[number + 1])
                frames.append(inside)
                sequences.append(range(count, count + len(inside)))
                names += [f"{name}/{frame:03d}" for frame in range(len(inside))]
                count += len(inside)
        if count == 0:
            raise FileNotFoundError(
                f"{tables / 'scene.json'}: has none of the scenes of split {split!r}; take another "
                "split= or version=, or name scenes="
            )
        self.names: Sequence[str] = Names(names)
        return np.concatenate(frames), sequences

    def _map_boxes(self, categories: Mapping[str, str] | None, tables: Path) -> NDArray[np.int64]:
        """Box label of each category, -1 = left out."""
        there = [name.decode() for name in self._index["category_name"].tolist()]
        mapping = CATEGORY_TO_DETECTION if categories is None else categories
        if categories is not None:
            self.box_classes = tuple(dict.fromkeys(categories.values()))
            unknown = [name for name in categories if name not in there]
            if unknown:
                raise ValueError(
                    f"NuScenes: unknown category {unknown[0]!r}; {tables / 'category.json'} has "
                    f"{', '.join(there)}"
                )
        elif there and not any(name in mapping for name in there):
            raise ValueError(
                f"NuScenes: none of the categories {', '.join(there)} is one of nuScenes; say with "
                "categories= which class each one is"
            )
        return np.array(
            [self.box_classes.index(mapping[n]) if n in mapping else -1 for n in there], np.int64
        )

    def _map_points(self, tables: Path) -> NDArray[np.uint8]:
        """Class of each lidarseg index ``[256]``; 254 = no such index."""
        if not any(self._index["label_file"][self._frames].tolist()):
            raise FileNotFoundError(
                f"{tables / 'lidarseg.json'}: no such table, or no entries for this split; unpack "
                "nuScenes-lidarseg over the data set, or take labels=False"
            )
        table = np.full(256, 254, np.uint8)
        names = self._index["category_name"].tolist()
        for raw, name in zip(names, self._index["category_index"].tolist(), strict=True):
            coarse = CATEGORY_TO_LIDARSEG.get(raw.decode())
            if 0 <= name < 256:
                table[name] = IGNORE if coarse is None else LIDARSEG_CLASSES.index(coarse)
        if (table == 254).all():
            raise FormatError(
                tables / "category.json",
                "gives no lidarseg index of its categories",
                "take the category.json of nuScenes-lidarseg",
            )
        return table

    def _find_cameras(self, cameras: Sequence[str] | None) -> list[int]:
        known = [name.decode() for name in self._index["camera_names"].tolist()]
        unknown = [name for name in cameras or () if name not in known]
        if unknown:
            raise ValueError(
                f"NuScenes: unknown camera {unknown[0]!r}; known are {', '.join(known)}"
            )
        columns = []
        for name in known if cameras is None else cameras:
            column = known.index(name)
            files = self._index["image_file"][self._frames, column]
            first = next((file.decode() for file in files.tolist() if file), "")
            folder = (self._root / first).parent
            if first and folder.is_dir():
                columns.append(column)
            elif cameras is not None:
                raise FileNotFoundError(
                    f"{folder}: no such folder; unpack the images of {name} there, or leave it out "
                    "of cameras="
                )
        return columns

    def _quarter_turns(self) -> dict[int, int]:
        """LiDAR -> how many quarter turns about its z bring x nearest to the car's forward."""
        turns = {}
        for sensor in np.unique(self._index["sweep_sensor"]).tolist():
            forward = self._sensor_pose(sensor)[0, :3]  # the car's x in the sensor's axes
            turns[sensor] = round(float(np.arctan2(forward[1], forward[0])) / (np.pi / 2)) % 4
        return turns

    # ---- reading

    def __len__(self) -> int:
        return len(self._frames)

    def _sensor_pose(self, sensor: int) -> NDArray[np.float64]:
        row = self._index["sensor_pose"][sensor]
        return pose_matrices(row[:3], row[3:])

    def _world_from_lidar(self, sweep: int) -> NDArray[np.float64]:
        """Of a sweep, in the sensor's own axes."""
        row = self._index["sweep_pose"][sweep]
        sensor = int(self._index["sweep_sensor"][sweep])
        return pose_matrices(row[:3], row[3:]) @ self._sensor_pose(sensor)

    def _read(self, sweep: int) -> NDArray[np.float32]:
        path = self._root / bytes(self._index["sweep_file"][sweep]).decode()
        return read_records(path, 5)

    def __getitem__(self, index: int) -> Sample:
        """One key frame: attributes ``intensity`` 0..1, ``ring``, with sweeps ``time``; ``boxes``
        with velocities (NaN where unknown) and track ids, ``labels``, ``images``, ``pose``."""
        index = position(index, len(self))
        frame = int(self._frames[index])
        sweep = int(self._index["frame_sweep"][frame])
        turn = _quarter(self._turns.get(int(self._index["sweep_sensor"][sweep]), 0))
        pose = self._world_from_lidar(sweep) @ turn
        time = float(self._index["sweep_time"][sweep])
        rows = self._read(sweep)
        points = coordinates(rows)
        if turn[0, 0] != 1:  # whole quarters: nothing is rounded
            points = points @ turn[:3, :3].astype(np.float32)
        labels = self._read_labels(frame, rows) if self._labels else None
        attributes = {
            "intensity": np.clip(rows[:, 3] / np.float32(255), 0, 1),
            "ring": np.clip(rows[:, 4], 0, 65535).astype(np.uint16),
        }
        if self._sweeps:
            points, attributes = self._with_past(sweep, pose, points, attributes)
            if labels is not None:
                labels = np.pad(labels, (0, len(points) - len(labels)), constant_values=IGNORE)
        return Sample(
            PointCloud(points, attributes, time=time),
            labels=labels,
            boxes=self._read_boxes(frame, pose) if self._boxes else None,
            pose=pose,
            name=self.names[index],
            images=self._read_images(frame, pose),
            time=time,
        )

    def _with_past(
        self,
        sweep: int,
        pose: NDArray[np.float64],
        points: NDArray[np.float32],
        attributes: dict[str, NDArray],
    ) -> tuple[NDArray[np.float32], dict[str, NDArray]]:
        """Points and attributes with those of past sweeps behind them, newest first."""
        back = invert(pose)
        clouds, clock = [points], self._index["sweep_time"]
        columns = {name: [values] for name, values in attributes.items()}
        lags = [np.zeros(len(points), np.float32)]
        past = sweep
        for _ in range(self._sweeps):
            past = int(self._index["sweep_prev"][past])
            if past < 0:
                break
            rows = self._read(past)
            rows = rows[(np.abs(rows[:, 0]) >= _NEAR) | (np.abs(rows[:, 1]) >= _NEAR)]
            motion = (back @ self._world_from_lidar(past)).astype(np.float32)
            clouds.append(coordinates(rows) @ motion[:3, :3].T + motion[:3, 3])
            columns["intensity"].append(np.clip(rows[:, 3] / np.float32(255), 0, 1))
            columns["ring"].append(np.clip(rows[:, 4], 0, 65535).astype(np.uint16))
            lags.append(np.full(len(rows), clock[sweep] - clock[past], np.float32))
        merged = {name: np.concatenate(values) for name, values in columns.items()}
        return np.concatenate(clouds), merged | {"time": np.concatenate(lags)}

    def _read_boxes(self, frame: int, pose: NDArray[np.float64]) -> Boxes3D:
        data = self._index
        rows = np.arange(data["box_start"][frame], data["box_start"][frame + 1])
        labels = self._box_label[data["box_category"][rows]]
        points = data["box_points"][rows]  # negative: not counted (Lyft)
        rows = rows[(labels >= 0) & ((points >= self._min_points) | (points < 0))]
        theirs = NuScenesBoxes(
            data["box_centre"][rows], data["box_size"][rows], data["box_rotation"][rows]
        )
        return Boxes3D(
            boxes_from_nuscenes(theirs, pose),
            self._box_label[data["box_category"][rows]],
            velocity=(data["box_velocity"][rows] @ pose[:3, :3])[:, :2].astype(np.float32),
            track_ids=data["box_track"][rows],
        )

    def _read_labels(self, frame: int, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        file = self._root / bytes(self._index["label_file"][frame]).decode()
        try:
            raw = np.fromfile(file, np.uint8)
        except OSError as error:
            raise FileNotFoundError(
                f"{file}: no readable labels ({error.strerror or error}); unpack nuScenes-lidarseg over "
                "the data set"
            ) from None
        if len(raw) != len(rows):
            raise FormatError(
                file, f"labels {len(raw)} points, the scan has {len(rows)}", "copy both again"
            )
        labels = self._point_label[raw]
        if (labels == 254).any():
            raise FormatError(
                file,
                f"has class {int(raw[labels == 254][0])}, which category.json does not know",
                "the file is damaged, or of another version",
            )
        return labels

    def _read_images(self, frame: int, pose: NDArray[np.float64]) -> tuple[Image, ...]:
        data, images = self._index, []
        for column in self._cameras:
            at = (frame, column)
            sensor = int(data["image_sensor"][at])
            if sensor < 0:
                continue
            row = data["image_pose"][at]
            world_from_camera = pose_matrices(row[:3], row[3:]) @ self._sensor_pose(sensor)
            width, height = data["image_size"][at].tolist()
            camera = Camera(
                data["sensor_matrix"][sensor], width, height, invert(pose) @ world_from_camera
            )
            images.append(
                Image(
                    camera,
                    self._root / bytes(data["image_file"][at]).decode(),
                    time=float(data["image_time"][at]),
                    name=bytes(data["camera_names"][column]).decode(),
                )
            )
        return tuple(images)


def _version(root: Path, split: str, version: str | None) -> Path:
    """The folder of the tables."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; root= should be the folder of nuScenes")
    usual = ("v1.0-test",) if split == "test" else ("v1.0-trainval", "v1.0-mini")
    for name in usual if version is None else (version,):
        if (root / name).is_dir():
            return root / name
    there = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())[:8])
    raise FileNotFoundError(
        f"{root}: has no folder {' or '.join(usual if version is None else (version,))} with the tables "
        f"(but {there or 'none'}); unpack the metadata there, or say version="
    )


def _quarter(turns: int) -> NDArray[np.float64]:
    """The pose ``[4, 4]`` of a frame turned by quarters about z, without rounding."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    pose = np.eye(4)
    pose[:2, :2] = [[cos, -sin], [sin, cos]]
    return pose
