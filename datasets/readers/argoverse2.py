"""Argoverse 2 sensor data set: https://www.argoverse.org/av2.html.

Formats: ``SENSOR_DATASET_README`` and ``constants.py`` of https://github.com/argoverse/av2-api.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.datasets.readers.index import Arrays, Names, cached, progress
from perception.datasets.readers.rotations import matrices, pose_matrices, quaternions
from perception.datasets.readers.scan_files import check_points, position, stems, subfolder
from perception.datasets.sample import Image, Sample
from perception.geometry import Boxes3D, Camera, interpolate, invert, transform
from perception.io import FormatError, PointCloud
from perception.io.feather import import_pyarrow, read_columns, read_table

__all__ = [
    "CAMERAS",
    "CATEGORIES",
    "Argoverse2",
    "ArgoverseCuboids",
    "argoverse_from_boxes",
    "boxes_from_argoverse",
]

#: Categories of the annotations; the position is the box label.
CATEGORIES = (
    "ANIMAL",
    "ARTICULATED_BUS",
    "BICYCLE",
    "BICYCLIST",
    "BOLLARD",
    "BOX_TRUCK",
    "BUS",
    "CONSTRUCTION_BARREL",
    "CONSTRUCTION_CONE",
    "DOG",
    "LARGE_VEHICLE",
    "MESSAGE_BOARD_TRAILER",
    "MOBILE_PEDESTRIAN_CROSSING_SIGN",
    "MOTORCYCLE",
    "MOTORCYCLIST",
    "OFFICIAL_SIGNALER",
    "PEDESTRIAN",
    "RAILED_VEHICLE",
    "REGULAR_VEHICLE",
    "SCHOOL_BUS",
    "SIGN",
    "STOP_SIGN",
    "STROLLER",
    "TRAFFIC_LIGHT_TRAILER",
    "TRUCK",
    "TRUCK_CAB",
    "VEHICULAR_TRAILER",
    "WHEELCHAIR",
    "WHEELED_DEVICE",
    "WHEELED_RIDER",
)

#: Cameras of the car: seven around, two for stereo.
CAMERAS = (
    "ring_front_center",
    "ring_front_left",
    "ring_front_right",
    "ring_side_left",
    "ring_side_right",
    "ring_rear_left",
    "ring_rear_right",
    "stereo_front_left",
    "stereo_front_right",
)

_QUATERNION = ("qw", "qx", "qy", "qz")
_TRANSLATION = ("tx_m", "ty_m", "tz_m")
_SIZE = ("length_m", "width_m", "height_m")
_FLOW = ("flow_tx_m", "flow_ty_m", "flow_tz_m")
_LENSES, _MOUNTS = "intrinsics", "egovehicle_SE3_sensor"
_NEAREST = 50_000_000  # nanoseconds: cameras take 20 images a second


class ArgoverseCuboids(NamedTuple):
    """M cuboids in Argoverse's own convention: rows of ``annotations.feather`` of one sweep.

    Attributes:
        centres: ``[M, 3]`` tx_m, ty_m, tz_m: geometric centres in the vehicle's frame.
        sizes: ``[M, 3]`` length, width, height, metres.
        rotations: ``[M, 4]`` qw, qx, qy, qz.
    """

    centres: NDArray[np.float64]
    sizes: NDArray[np.float64]
    rotations: NDArray[np.float64]


def boxes_from_argoverse(cuboids: ArgoverseCuboids) -> NDArray[np.float32]:
    """``[M, 7]`` x, y, z, length, width, height, yaw in the vehicle's frame."""
    ahead = matrices(cuboids.rotations)[:, :, 0]
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0])
    columns = [cuboids.centres, cuboids.sizes, yaw[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32)


def argoverse_from_boxes(boxes: ArrayLike) -> ArgoverseCuboids:
    """Cuboids of boxes ``[M, 7]``; undoes :func:`boxes_from_argoverse`."""
    rows = np.asarray(boxes, np.float64).reshape(-1, 7)
    return ArgoverseCuboids(rows[:, :3], rows[:, 3:6], quaternions(rows[:, 6]))


class Argoverse2:
    """The sweeps (10 Hz) of Argoverse 2's sensor logs with boxes, poses, cameras and scene flow.

    ``root`` holds ``train``, ``val`` and ``test`` (or ``sensor`` with these in it), each with a folder
    per log: ``sensors/lidar/NS.feather``, ``sensors/cameras/NAME/NS.jpg``, ``annotations.feather``,
    ``city_SE3_egovehicle.feather``, ``calibration/*.feather``; NS is the time in nanoseconds.

    Clouds, boxes and cameras are in the **vehicle's** frame at the time of the sweep, as Argoverse
    gives them: x forward, y left, z up like every LiDAR frame here, but with zero at the rear axle,
    1.35 m behind and 1.64 m below the upper LiDAR. The pose is city_from_vehicle. Images are
    undistorted already, so that cameras have no distortion.

    Args:
        root: the folder.
        split: ``train``, ``val`` or ``test``.
        logs: names of the logs to read, instead of all of the split.
        boxes: whether to read boxes; the test split has none in any case.
        cameras: images to attach, each the nearest in time within 50 ms, its pose corrected for the
            motion since; None: those whose folder is there in every log.
        classes: categories to keep, in the order of their labels; :data:`CATEGORIES` are all.
        min_points: boxes with fewer points are left out; the official evaluation uses 1.
        flow: a folder with scene flow, ``LOG/NS.feather`` with columns flow_tx_m, flow_ty_m,
            flow_tz_m and a row per point; None: only what lies as ``flow_labels.feather`` in a log,
            for its first sweep.

    Raises:
        FileNotFoundError: a folder or file is missing; the message says which.
        FormatError: a file is damaged.
        ImportError: pyarrow is not installed (extra ``argoverse``).
        ValueError: an unknown split, log, camera or class.
    """

    classes: tuple[str, ...] = ()
    colors: NDArray[np.uint8] = np.zeros((0, 3), np.uint8)

    def __init__(
        self,
        root: str | PathLike[str],
        split: str = "train",
        *,
        logs: Sequence[str] | None = None,
        boxes: bool = True,
        cameras: Sequence[str] | None = None,
        classes: Sequence[str] = CATEGORIES,
        min_points: int = 0,
        flow: str | PathLike[str] | None = None,
    ) -> None:
        if split not in ("train", "val", "test"):
            raise ValueError(f"Argoverse2: unknown split {split!r}; known are train, val, test")
        for what, names, known in (
            ("class", classes, CATEGORIES),
            ("camera", cameras or (), CAMERAS),
        ):
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ValueError(
                    f"Argoverse2: unknown {what} {unknown[0]!r}; known are {', '.join(known)}"
                )
        import_pyarrow()
        self.box_classes = tuple(classes)
        self._root = subfolder(root, (f"sensor/{split}", split), of="Argoverse 2")
        self._logs = self._find_logs(logs)
        self._flow = None if flow is None else Path(flow).expanduser()
        if self._flow is not None and not self._flow.is_dir():
            raise FileNotFoundError(
                f"{self._flow}: no such folder; flow= should hold LOG/NS.feather"
            )
        self._boxes = boxes and split != "test"
        for log in self._logs if self._boxes else ():
            if not (self._root / log / "annotations.feather").is_file():
                raise FileNotFoundError(
                    f"{self._root / log / 'annotations.feather'}: no such file; unpack the log "
                    "completely, or take boxes=False"
                )
        self._min_points = min_points
        self._cameras = self._find_cameras(cameras)
        self._label = {name: number for number, name in enumerate(self.box_classes)}
        options = " ".join((*self._cameras, "|", *self._logs))
        self._index = cached(
            "argoverse-1", self._root, self._sources(), self._build, options=options
        )
        self._starts = self._index["log_start"]
        starts = self._starts.tolist()
        self.sequences = [range(a, b) for a, b in pairwise(starts)]
        times = self._index["sweep_time"]
        log_of = np.repeat(np.array([log.encode() for log in self._logs]), np.diff(self._starts))
        self.names: Sequence[str] = Names(
            np.char.add(np.char.add(log_of, b"/"), times.astype(bytes))
        )

    # ---- what to read

    def _find_logs(self, logs: Sequence[str] | None) -> tuple[str, ...]:
        there = sorted(p.name for p in self._root.iterdir() if (p / "sensors" / "lidar").is_dir())
        if not there:
            raise FileNotFoundError(
                f"{self._root}: has no log with a folder sensors/lidar; unpack the logs there"
            )
        unknown = [log for log in logs or () if log not in there]
        if unknown:
            raise ValueError(
                f"Argoverse2: unknown log {unknown[0]!r}; {self._root} has {', '.join(there[:4])}"
            )
        return tuple(there if logs is None else logs)

    def _find_cameras(self, cameras: Sequence[str] | None) -> tuple[str, ...]:
        found = []
        for name in CAMERAS if cameras is None else cameras:
            folders = (self._root / log / "sensors" / "cameras" / name for log in self._logs)
            missing = next((folder for folder in folders if not folder.is_dir()), None)
            if missing is None:
                found.append(name)
            elif cameras is not None:
                raise FileNotFoundError(
                    f"{missing}: no such folder; unpack the images there, or leave {name} out of "
                    "cameras="
                )
        return tuple(found)

    def _sources(self) -> Iterator[Path]:
        for log in self._logs:
            folder = self._root / log
            yield folder / "sensors" / "lidar"
            yield folder / "city_SE3_egovehicle.feather"
            for name in self._cameras:
                yield folder / "sensors" / "cameras" / name

    def _build(self) -> Arrays:
        """Times and poses [N, 7] of sweeps, and of the image of each camera nearest to each [N, C]:
        image_time -1 where there is none."""
        times, poses, image_times, image_poses, counts = [], [], [], [], [0]
        with progress(len(self._logs), f"indexing {self._root}", "log") as bar:
            for log in self._logs:
                folder = self._root / log
                sweeps = _stamps(folder / "sensors" / "lidar", ".feather", "the log's sweeps")
                track = _Track(folder / "city_SE3_egovehicle.feather")
                images = np.full((len(sweeps), len(self._cameras)), -1, np.int64)
                for column, name in enumerate(self._cameras):
                    taken = _stamps(folder / "sensors" / "cameras" / name, ".jpg", "images")
                    nearest = taken[_nearest(taken, sweeps)]
                    close = np.abs(nearest - sweeps) <= _NEAREST
                    images[close, column] = nearest[close]
                times.append(sweeps)
                poses.append(track.at(sweeps))
                image_times.append(images)
                image_poses.append(track.at(images.ravel()).reshape(*images.shape, 3, 4))
                counts.append(counts[-1] + len(sweeps))
                bar.update()
        return {
            "log_start": np.array(counts, np.int64),
            "sweep_time": np.concatenate(times),
            "sweep_pose": np.concatenate(poses),
            "image_time": np.concatenate(image_times),
            "image_pose": np.concatenate(image_poses),
        }

    # ---- reading

    def __len__(self) -> int:
        return len(self._index["sweep_time"])

    def _pose(self, index: int) -> NDArray[np.float64]:
        return np.vstack([self._index["sweep_pose"][index], [0.0, 0, 0, 1]])

    def __getitem__(self, index: int) -> Sample:
        """One sweep: attributes ``intensity`` 0..1, ``ring``, ``time`` (seconds since the sweep began);
        ``boxes`` with track ids (numbers within the log), ``images``, ``flow``, ``pose``, ``time``.

        ``flow`` is over ground, as everything in a sample's frame: zero for what stands still, although
        Argoverse's files count the vehicle's own motion in. ``points + flow``, moved by this pose and
        the inverse of the next sweep's, is where Argoverse's ``points + flow`` is.
        """
        index = position(index, len(self))
        log = int(np.searchsorted(self._starts, index, side="right")) - 1
        folder = self._root / self._logs[log]
        stamp = int(self._index["sweep_time"][index])
        time = stamp * 1e-9
        cloud = _read_sweep(folder / "sensors" / "lidar" / f"{stamp}.feather", time)
        return Sample(
            cloud,
            boxes=self._read_boxes(folder, stamp) if self._boxes else None,
            pose=self._pose(index),
            name=self.names[index],
            images=self._read_images(folder, index),
            time=time,
            flow=self._read_flow(folder, index, cloud),
        )

    def _read_boxes(self, folder: Path, stamp: int) -> Boxes3D:
        file = folder / "annotations.feather"
        log = _annotations(file, _changed(file))
        first, last = np.searchsorted(log.times, [stamp, stamp + 1])
        names = np.array([self._label.get(name, -1) for name in log.categories], np.int64)
        rows = np.arange(first, last)
        labels = names[log.category[rows]]
        rows = rows[(labels >= 0) & (log.points[rows] >= self._min_points)]
        cuboids = ArgoverseCuboids(
            log.geometry[rows, :3], log.geometry[rows, 3:6], log.geometry[rows, 6:]
        )
        return Boxes3D(
            boxes_from_argoverse(cuboids),
            names[log.category[rows]],
            track_ids=log.track[rows],
        )

    def _read_images(self, folder: Path, index: int) -> tuple[Image, ...]:
        images = []
        back = invert(self._pose(index))
        for column, name in enumerate(self._cameras):
            stamp = int(self._index["image_time"][index, column])
            if stamp < 0:
                continue
            calibration = folder / "calibration"
            files = (calibration / f"{table}.feather" for table in (_LENSES, _MOUNTS))
            sensor = _calibration(calibration, _changed(*files)).get(name)
            if sensor is None:
                raise FormatError(
                    calibration / f"{_LENSES}.feather",
                    f"has no camera {name}",
                    "leave it out of cameras=",
                )
            then = np.vstack([self._index["image_pose"][index, column], [0.0, 0, 0, 1]])
            images.append(
                Image(
                    sensor.moved(back @ then),
                    folder / "sensors" / "cameras" / name / f"{stamp}.jpg",
                    time=stamp * 1e-9,
                    name=name,
                )
            )
        return tuple(images)

    def _read_flow(self, folder: Path, index: int, cloud: PointCloud) -> NDArray[np.float32] | None:
        if index + 1 in self._starts:  # the last of a log
            return None
        if self._flow is not None:
            stamp = int(self._index["sweep_time"][index])
            file = self._flow / folder.name / f"{stamp}.feather"
        elif index in self._starts:
            file = folder / "flow_labels.feather"
        else:
            return None
        if not file.is_file():
            return None
        columns = read_columns(file, _FLOW)
        seen = np.stack([columns[name] for name in _FLOW], axis=1).astype(np.float64)
        if len(seen) != len(cloud) or not np.isfinite(seen).all():
            raise FormatError(
                file,
                f"has {len(seen)} rows for {len(cloud)} points, or some are not finite",
                "files with a row for every point are read, not those of the evaluation's masks",
            )
        points = cloud.points.astype(np.float64)
        motion = invert(self._pose(index)) @ self._pose(index + 1)
        return (transform(motion, points + seen) - points).astype(np.float32)


class _Log(NamedTuple):
    """Annotations of a log by time; categories and tracks as numbers."""

    times: NDArray[np.int64]
    geometry: NDArray[np.float64]  # [M, 10]: centre, size, quaternion
    points: NDArray[np.int64]
    category: NDArray[np.int64]
    categories: tuple[str, ...]
    track: NDArray[np.int64]


def _changed(*files: Path) -> tuple[int, ...]:
    """What tells kept tables from rewritten files; -1 where there is none."""
    return tuple(file.stat().st_mtime_ns if file.is_file() else -1 for file in files)


# A loader that walks along a log asks for the same tables again and again.
@lru_cache(maxsize=8)
def _annotations(file: Path, changed: tuple[int, ...]) -> _Log:
    geometry = (*_TRANSLATION, *_SIZE, *_QUATERNION)
    numbers = ("timestamp_ns", "num_interior_pts", *geometry)
    columns = read_columns(file, numbers)
    table = read_table(file, ("category", "track_uuid"))
    category, categories = _numbered(file, table, "category")
    unknown = [name for name in categories if name not in CATEGORIES]
    if unknown:
        raise FormatError(
            file, f"has an unknown class {unknown[0]!r}", f"Argoverse 2 has {', '.join(CATEGORIES)}"
        )
    track, _ = _numbered(file, table, "track_uuid")
    values = np.stack([columns[name] for name in geometry], axis=1).astype(np.float64)
    if not np.isfinite(values).all() or (values[:, 3:6] <= 0).any():
        raise FormatError(
            file, "has boxes that are not finite or without size", "copy the file again"
        )
    times = columns["timestamp_ns"].astype(np.int64)
    order = np.argsort(times, kind="stable")
    return _Log(
        times[order],
        values[order],
        columns["num_interior_pts"][order],
        category[order],
        categories,
        track[order] + 1,
    )


def _numbered(file: Path, table: Any, name: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """A column of strings as positions in its different values, sorted."""
    column = table[name].combine_chunks()
    if column.null_count or str(column.type) not in ("string", "large_string"):
        raise FormatError(
            file, f"column {name} has missing values or no text", "copy the file again"
        )
    encoded = column.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    ranks = np.argsort(np.argsort(np.array(values, dtype=str)))
    numbers = encoded.indices.to_numpy(zero_copy_only=False)
    return ranks[numbers].astype(np.int64), tuple(sorted(values))


@lru_cache(maxsize=64)
def _calibration(folder: Path, changed: tuple[int, ...]) -> dict[str, Camera]:
    """Cameras of a log by name, their poses vehicle_from_camera."""
    mounts = _named(folder / f"{_MOUNTS}.feather", (*_TRANSLATION, *_QUATERNION))
    lenses = ("fx_px", "fy_px", "cx_px", "cy_px", "width_px", "height_px")
    cameras = {}
    for name, row in _named(folder / f"{_LENSES}.feather", lenses).items():
        if name not in mounts:
            raise FormatError(
                folder / f"{_MOUNTS}.feather",
                f"has no sensor {name}",
                "copy the calibration again",
            )
        matrix = np.array([[row[0], 0, row[2]], [0, row[1], row[3]], [0, 0, 1]])
        mount = mounts[name]
        try:
            pose = pose_matrices(mount[:3], mount[3:])
            cameras[name] = Camera(matrix, int(row[4]), int(row[5]), pose)
        except ValueError as error:
            raise FormatError(folder, f"camera {name}: {error}", "copy it again") from None
    return cameras


def _named(file: Path, columns: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Rows of a calibration table by the name of their sensor."""
    numbers = read_columns(file, columns)
    names = read_table(file, ("sensor_name",))["sensor_name"].to_pylist()
    rows = np.stack([numbers[name].astype(np.float64) for name in columns], axis=1)
    return dict(zip(names, rows, strict=True))


class _Track:
    """The vehicle's poses in the city over time."""

    def __init__(self, file: Path) -> None:
        names = ("timestamp_ns", *_TRANSLATION, *_QUATERNION)
        columns = read_columns(file, names)
        rows = np.stack([columns[name].astype(np.float64) for name in names[1:]], axis=1)
        if len(rows) == 0 or not np.isfinite(rows).all():
            raise FormatError(file, "has no poses, or some are not finite", "copy the file again")
        times = columns["timestamp_ns"].astype(np.int64)
        self.times, first = np.unique(times, return_index=True)
        try:
            self.poses = pose_matrices(rows[first, :3], rows[first, 3:])
        except ValueError as error:
            raise FormatError(file, str(error), "copy the file again") from None

    def at(self, stamps: NDArray[np.int64]) -> NDArray[np.float64]:
        """``[K, 3, 4]`` at times: of the same stamp where there is one, else between neighbours."""
        found = np.clip(np.searchsorted(self.times, stamps), 0, len(self.times) - 1)
        poses = self.poses[found]
        between = self.times[found] != stamps
        if between.any():
            start = self.times[0]
            seconds = (self.times - start) * 1e-9
            poses[between] = interpolate(seconds, self.poses, (stamps[between] - start) * 1e-9)
        return poses[:, :3]


def _stamps(folder: Path, suffix: str, what: str) -> NDArray[np.int64]:
    """Times in nanoseconds that the files of a folder are named by, sorted."""
    found = stems(folder, suffix, what=what)
    try:
        return np.sort(found.astype(np.int64))
    except ValueError:
        name = next(stem for stem in found.tolist() if not stem.isdigit()).decode()
        raise FormatError(
            folder / f"{name}{suffix}", "is not named by a time in nanoseconds", "move it elsewhere"
        ) from None


def _nearest(sorted_times: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position in `sorted_times` of the nearest to each of `times`."""
    right = np.clip(np.searchsorted(sorted_times, times), 1, max(len(sorted_times) - 1, 1))
    right = np.minimum(right, len(sorted_times) - 1)
    left = np.maximum(right - 1, 0)
    earlier = np.abs(times - sorted_times[left]) <= np.abs(sorted_times[right] - times)
    return np.where(earlier, left, right)


def _read_sweep(file: Path, time: float) -> PointCloud:
    columns = read_columns(file, ("x", "y", "z", "intensity", "laser_number", "offset_ns"))
    points = np.stack([columns[axis] for axis in "xyz"], axis=1).astype(np.float32, copy=False)
    if len(points) == 0:
        raise FormatError(file, "holds no points", "copy it again")
    check_points(file, points)
    return PointCloud(
        points,
        {
            "intensity": columns["intensity"] * np.float32(1 / 255),
            "ring": columns["laser_number"].astype(np.uint16),
            "time": columns["offset_ns"] * np.float32(1e-9),
        },
        time=time,
    )
