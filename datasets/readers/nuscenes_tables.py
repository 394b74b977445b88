"""From the JSON tables of nuScenes to the arrays that reading a sample needs.

``sample_data.json`` of the whole data set holds 2.6 million records (1.4 GB); kept are the LiDAR
sweeps and the key frames' images. The large tables are parsed record by record, so that memory
follows what is kept. https://www.nuscenes.org/nuscenes#data-format describes the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.index import Arrays, Progress, progress
from perception.io import FormatError

__all__ = ["LIDAR", "TABLES", "index_tables", "records", "velocities"]

LIDAR = "LIDAR_TOP"

#: Tables that are needed; lidarseg.json is read where it is.
TABLES = (
    "category",
    "sensor",
    "calibrated_sensor",
    "scene",
    "sample",
    "instance",
    "sample_data",
    "ego_pose",
    "sample_annotation",
)

Record = dict[str, Any]

_CHUNK = 1 << 22  # characters; no record is nearly as long


def records(path: Path, bar: Progress | None = None) -> Iterator[Record]:
    """The records of a table, one after the other; the bar advances by bytes.

    Raises:
        FileNotFoundError: there is no such table.
        FormatError: it is no JSON list of objects, or ends early.
    """
    decoder = json.JSONDecoder()
    again = "the table is cut or damaged; unpack the metadata again"
    try:
        handle = path.open("rb")
    except OSError:
        raise FileNotFoundError(
            f"{path}: no such table; unpack the metadata archive of this version there"
        ) from None
    with handle:
        text, at, ended, opened = "", 0, False, False
        pending = b""
        while True:
            # Skip what stands between records.
            while at < len(text) and text[at] in " \t\r\n" + ("," if opened else "["):
                opened = opened or text[at] == "["
                at += 1
            if at < len(text) and opened:
                if text[at] == "]":
                    return
                try:
                    record, at = decoder.raw_decode(text, at)
                except ValueError:
                    # Cut by the end of the chunk, or no JSON: more text decides.
                    if ended or len(text) - at > 2 * _CHUNK:
                        raise FormatError(path, "is no JSON list of records", again) from None
                else:
                    if not isinstance(record, dict):
                        raise FormatError(path, "is no JSON list of records", again)
                    yield record
                    continue
            elif at < len(text) or ended:
                raise FormatError(path, "is no JSON list of records", again)
            data = handle.read(_CHUNK)
            ended = not data
            if bar is not None:
                bar.update(len(data))
            pending += data
            try:
                more, pending = pending.decode(), b""
            except UnicodeDecodeError as error:
                if ended or error.start < len(pending) - 4:
                    raise FormatError(path, "is no text", again) from None
                more, pending = pending[: error.start].decode(), pending[error.start :]
            text, at = text[at:] + more, 0


def velocities(
    centres: NDArray[np.float64],
    times: NDArray[np.float64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    longest: float = 1.5,
) -> NDArray[np.float64]:
    """Velocities ``[M, 3]`` in the world, as the devkit's ``box_velocity`` computes them.

    The difference of the object's previous and next position, or of one of them and this; NaN where
    there is neither, or more than `longest` seconds lie between (twice that between both).

    Args:
        centres: ``[M, 3]`` metres, world.
        times: ``[M]`` seconds.
        before, after: ``[M]`` rows of the object's annotations in the neighbouring key frames, -1
            where there is none.
        longest: seconds.
    """
    here = np.arange(len(centres))
    first, last = np.where(before >= 0, before, here), np.where(after >= 0, after, here)
    duration = times[last] - times[first]
    limit = np.where((before >= 0) & (after >= 0), 2 * longest, longest)
    known = ((before >= 0) | (after >= 0)) & (duration <= limit) & (duration > 0)
    speed = (centres[last] - centres[first]) / np.where(known, duration, 1.0)[:, None]
    return np.where(known[:, None], speed, np.nan)


def index_tables(folder: Path) -> Arrays:
    """Read all tables of a version once; see the comments for what the arrays hold.

    Raises:
        FileNotFoundError: a table is missing.
        FormatError: a table is damaged, or names what another one lacks.
    """
    total = sum(
        (folder / f"{t}.json").stat().st_size for t in TABLES if (folder / f"{t}.json").is_file()
    )
    with progress(total, f"indexing {folder}", "B") as bar:
        tables = _Tables(folder, bar)
        try:
            return tables.arrays()
        except FormatError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                tables.file,
                f"record {tables.at.get('token', '?')} is not as nuScenes describes it ({error!r})",
                "the table is of another format, or damaged; unpack the metadata again",
            ) from None


class _Tables:
    """One pass over every table, small ones first: later ones are filtered by them."""

    def __init__(self, folder: Path, bar: Progress) -> None:
        self.folder = folder
        self.bar = bar
        self.file, self.at = folder, Record()  # for messages

    def rows(self, table: str) -> Iterator[Record]:
        file = self.folder / f"{table}.json"
        for row in records(file, self.bar):
            self.file, self.at = file, row
            yield row

    def lacks(self, table: str, other: str, token: str) -> FormatError:
        return FormatError(
            self.folder / f"{table}.json",
            f"names {token!r}, which {other}.json has not",
            "the tables are of different versions, or cut; unpack the metadata again",
        )

    def arrays(self) -> Arrays:
        result = self.sensors() | self.frames()
        result |= self.data()
        return result | self.annotations() | self.labels()

    def sensors(self) -> Arrays:
        """sensor_pose [C, 7]: translation, quaternion of ego_from_sensor; sensor_matrix [C, 3, 3]."""
        channels = {row["token"]: row for row in self.rows("sensor")}
        self.sensor: dict[str, int] = {}
        self.channel: list[str] = []
        poses: list[list[float]] = []
        matrices = []
        for row in self.rows("calibrated_sensor"):
            if row["sensor_token"] not in channels:
                raise self.lacks("calibrated_sensor", "sensor", row["sensor_token"])
            self.sensor[row["token"]] = len(poses)
            self.channel.append(channels[row["sensor_token"]]["channel"])
            poses.append([*row["translation"], *row["rotation"]])
            matrices.append(row["camera_intrinsic"] or [[0.0] * 3] * 3)
        self.cameras = sorted(
            row["channel"] for row in channels.values() if row["modality"] == "camera"
        )
        return {
            "sensor_pose": np.array(poses, np.float64).reshape(-1, 7),
            "sensor_matrix": np.array(matrices, np.float64).reshape(-1, 3, 3),
            "camera_names": _bytes(self.cameras),
        }

    def frames(self) -> Arrays:
        """Key frames, scene after scene: frame_token [F]; scene_name [S], scene_start [S + 1]."""
        scenes = {
            row["token"]: (number, row["name"]) for number, row in enumerate(self.rows("scene"))
        }
        found = []
        for row in self.rows("sample"):
            if row["scene_token"] not in scenes:
                raise self.lacks("sample", "scene", row["scene_token"])
            found.append((scenes[row["scene_token"]][0], row["timestamp"], row["token"]))
        found.sort()
        self.frame = {token: number for number, (_, _, token) in enumerate(found)}
        self.frame_time = np.array([time * 1e-6 for _, time, _ in found], np.float64)
        counts = np.bincount([scene for scene, _, _ in found], minlength=len(scenes))
        return {
            "frame_token": _bytes(token for _, _, token in found),
            "scene_name": _bytes(name for _, name in scenes.values()),
            "scene_start": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        }

    def data(self) -> Arrays:
        """Sweeps [P] of the LiDAR (frame_sweep [F]: the key frame's) and images [F, C]."""
        lidar: list[tuple[str, float, int]] = []  # file, time, sensor
        lidar_pose: list[str] = []
        prev: list[str] = []
        rows: dict[str, int] = {}
        shape = (len(self.frame), len(self.cameras))
        image_file = np.zeros(shape, dtype=object)
        image_file.fill("")
        image_time, image_pose = np.zeros(shape), np.zeros((*shape, 7))
        image_sensor, image_size = np.full(shape, -1, np.int32), np.zeros((*shape, 2), np.int32)
        frame_sweep = np.full(len(self.frame), -1, np.int32)
        column = {name: number for number, name in enumerate(self.cameras)}
        wanted: dict[str, list[tuple[int, ...]]] = {}
        self.frame_data: dict[str, int] = {}
        for row in self.rows("sample_data"):
            sensor = self.sensor.get(row["calibrated_sensor_token"])
            if sensor is None:
                raise self.lacks("sample_data", "calibrated_sensor", row["calibrated_sensor_token"])
            channel, key = self.channel[sensor], row["is_key_frame"]
            if channel != LIDAR and not (key and channel in column):
                continue
            frame = self.frame.get(row["sample_token"], -1)
            if key and frame < 0:
                raise self.lacks("sample_data", "sample", row["sample_token"])
            if channel == LIDAR:
                rows[row["token"]] = len(lidar)
                if key:
                    frame_sweep[frame] = len(lidar)
                    self.frame_data[row["token"]] = frame
                lidar.append((row["filename"], row["timestamp"] * 1e-6, sensor))
                lidar_pose.append(row["ego_pose_token"])
                prev.append(row["prev"])
            else:
                at = (frame, column[channel])
                image_file[at], image_time[at] = row["filename"], row["timestamp"] * 1e-6
                image_sensor[at], image_size[at] = sensor, (row["width"], row["height"])
                wanted.setdefault(row["ego_pose_token"], []).append(at)
        lacking = np.flatnonzero(frame_sweep < 0)
        if len(lacking):
            raise FormatError(
                self.folder / "sample_data.json",
                f"has no {LIDAR} for {len(lacking)} of {len(self.frame)} key frames",
                "unpack the metadata again",
            )
        for number, token in enumerate(lidar_pose):
            wanted.setdefault(token, []).append((number,))
        sweep_pose = np.zeros((len(lidar), 7))
        for row in self.rows("ego_pose"):
            for place in wanted.pop(row["token"], ()):
                pose = [*row["translation"], *row["rotation"]]
                if len(place) == 1:
                    sweep_pose[place] = pose
                else:
                    image_pose[place] = pose
        if wanted:
            raise self.lacks("sample_data", "ego_pose", next(iter(wanted)))
        return {
            "frame_sweep": frame_sweep,
            "sweep_file": _bytes(file for file, _, _ in lidar),
            "sweep_time": np.array([time for _, time, _ in lidar], np.float64),
            "sweep_sensor": np.array([sensor for _, _, sensor in lidar], np.int32),
            # An unknown predecessor is one that a subset of the data set was made without.
            "sweep_prev": np.array([rows.get(token, -1) for token in prev], np.int32),
            "sweep_pose": sweep_pose,
            "image_file": _bytes(image_file.ravel().tolist()).reshape(shape),
            "image_time": image_time,
            "image_pose": image_pose,
            "image_sensor": image_sensor,
            "image_size": image_size,
        }

    def annotations(self) -> Arrays:
        """Boxes [B] in the world, key frame after key frame: box_start [F + 1]."""
        categories: list[str] = []
        indices = []
        category: dict[str, int] = {}
        for row in self.rows("category"):
            category[row["token"]] = len(categories)
            categories.append(row["name"])
            indices.append(row.get("index", -1))
        instances: dict[str, tuple[int, int]] = {}
        for row in self.rows("instance"):
            if row["category_token"] not in category:
                raise self.lacks("instance", "category", row["category_token"])
            # From 1: 0 is "no object" where points carry these numbers.
            instances[row["token"]] = (len(instances) + 1, category[row["category_token"]])
        frames: list[int] = []
        tracks, kinds, counts = [], [], []
        geometry, links = [], []
        number: dict[str, int] = {}
        for row in self.rows("sample_annotation"):
            if row["sample_token"] not in self.frame:
                raise self.lacks("sample_annotation", "sample", row["sample_token"])
            if row["instance_token"] not in instances:
                raise self.lacks("sample_annotation", "instance", row["instance_token"])
            number[row["token"]] = len(frames)
            frames.append(self.frame[row["sample_token"]])
            track, kind = instances[row["instance_token"]]
            tracks.append(track)
            kinds.append(kind)
            counts.append(row["num_lidar_pts"] + row["num_radar_pts"])
            geometry.append((*row["translation"], *row["size"], *row["rotation"]))
            links.append((row["prev"], row["next"]))
        order = np.argsort(np.array(frames, np.int64), kind="stable")
        boxes = np.array(geometry, np.float64).reshape(-1, 10)
        frame = np.array(frames, np.int64)
        before = np.array([number.get(token, -1) for token, _ in links], np.int64)
        after = np.array([number.get(token, -1) for _, token in links], np.int64)
        speed = velocities(boxes[:, :3], self.frame_time[frame], before, after)
        per_frame = np.bincount(frame, minlength=len(self.frame))
        return {
            "category_name": _bytes(categories),
            "category_index": np.array(indices, np.int32),
            "box_start": np.concatenate([[0], np.cumsum(per_frame)]).astype(np.int64),
            "box_centre": boxes[order, :3],
            "box_size": boxes[order, 3:6].astype(np.float32),
            "box_rotation": boxes[order, 6:],
            "box_velocity": speed[order].astype(np.float32),
            "box_track": np.array(tracks, np.int32)[order],
            "box_category": np.array(kinds, np.int16)[order],
            "box_points": np.array(counts, np.int32)[order],
        }

    def labels(self) -> Arrays:
        """label_file [F]: the lidarseg file of each key frame, empty where there is none."""
        files = [""] * len(self.frame)
        if (self.folder / "lidarseg.json").is_file():
            for row in self.rows("lidarseg"):
                if row["sample_data_token"] in self.frame_data:
                    files[self.frame_data[row["sample_data_token"]]] = row["filename"]
        return {"label_file": _bytes(files)}


def _bytes(values: Any) -> NDArray[np.bytes_]:
    encoded = [value.encode() for value in values]
    return np.array(encoded, dtype=bytes) if encoded else np.zeros(0, "S1")
