"""A small data set in the layout of nuScenes v1.0-mini, of a world that is known exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

SWEEP = 0.05  # seconds
PER_FRAME = 4  # sweeps from key frame to key frame
CAMERAS = ("CAM_FRONT", "CAM_BACK")


def turn(axis: tuple[float, float, float], angle: float) -> tuple[np.ndarray, list[float]]:
    """Rodrigues' matrix of a turn, and its quaternion w, x, y, z."""
    x, y, z = np.array(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    half = angle / 2
    return matrix, [np.cos(half), x * np.sin(half), y * np.sin(half), z * np.sin(half)]


@dataclass
class Placed:
    """A rigid motion with the quaternion that the tables hold."""

    matrix: np.ndarray
    record: dict[str, list[float]]

    @classmethod
    def at(cls, where: list[float], axis: tuple[float, float, float], angle: float) -> Placed:
        rotation, quaternion = turn(axis, angle)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, where
        return cls(matrix, {"translation": list(where), "rotation": list(quaternion)})


# As on the real car: x of the LiDAR to the right, and a little tilt.
LIDAR = Placed.at([0.94, 0.0, 1.84], (0.01, 0.02, -1.0), np.pi / 2)
# Camera axes: z forward, x right; the back one looks back.
FRONT = Placed.at([1.7, 0.0, 1.5], (-1.0, 1.0, -1.0), 2 * np.pi / 3)
BACK = Placed.at([0.0, 0.0, 1.5], (-1.0, -1.0, 1.0), 2 * np.pi / 3)


def ego(time: float) -> Placed:
    """The car drives 10 m/s in a left-hand bend on a road that rises."""
    angle = 0.3 + 0.2 * time
    where = [600.0 + 10 * time, 1600.0 + time * time, 0.5 * time]
    return Placed.at(where, (0.0, 0.02, 1.0), angle)


@dataclass
class Thing:
    """An object that moves straight ahead, annotated in some key frames of a scene."""

    category: str
    scene: int
    frames: list[int]
    start: tuple[float, float, float]
    yaw: float
    speed: float
    size: tuple[float, float, float]  # width, length, height
    points: int = 5

    def centre(self, time: float) -> list[float]:
        ahead = np.array([np.cos(self.yaw), np.sin(self.yaw), 0.0])
        return (np.array(self.start) + self.speed * time * ahead).tolist()


@dataclass
class Tree:
    """What was written, for the tests to compare with."""

    root: Path
    things: list[Thing]
    landmarks: np.ndarray  # [N, 3] of the world; every sweep measures all of them
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    key_times: dict[str, float] = field(default_factory=dict)  # sample token -> seconds

    def write_tables(self) -> None:
        for name, rows in self.tables.items():
            file = self.root / "v1.0-mini" / f"{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(rows, indent=0))


def token(kind: str, *numbers: int) -> str:
    return "".join(f"{number:04x}" for number in numbers).rjust(31, "0") + f"{len(kind) % 16:x}"


TABLES = (
    "attribute",
    "visibility",
    "log",
    "map",
    "category",
    "sensor",
    "calibrated_sensor",
    "scene",
    "sample",
    "instance",
    "sample_data",
    "ego_pose",
    "sample_annotation",
    "lidarseg",
)

CATEGORIES = [
    ("noise", 0),
    ("vehicle.car", 17),
    ("human.pedestrian.adult", 2),
    ("animal", 1),
    ("flat.driveable_surface", 24),
]


def build(root: Path) -> Tree:
    """Two scenes (one of mini_train, one of mini_val) of four key frames each."""
    rng = np.random.default_rng(0)
    landmarks = rng.uniform([560, 1560, -1], [660, 1660, 6], (400, 3))
    things = [
        Thing("vehicle.car", 0, [0, 1, 2, 3], (612.0, 1612.0, 1.0), 0.9, 8.0, (1.9, 4.6, 1.7)),
        Thing("human.pedestrian.adult", 0, [1], (605.0, 1590.0, 1.0), -2.0, 1.0, (0.6, 0.7, 1.8)),
        Thing("animal", 0, [0, 1], (606.0, 1595.0, 0.5), 0.0, 1.0, (0.3, 0.6, 0.5)),
        Thing("vehicle.car", 0, [0, 3], (580.0, 1600.0, 1.0), 0.2, 5.0, (2.0, 4.0, 1.5), points=0),
        Thing("vehicle.car", 1, [0, 1], (620.0, 1605.0, 1.0), 2.5, -3.0, (1.8, 4.4, 1.6)),
    ]
    tree = Tree(root, things, landmarks)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    tree.tables = tables
    for number, (name, index) in enumerate(CATEGORIES):
        tables["category"].append(
            {"token": token("category", number), "name": name, "description": "", "index": index}
        )
    sensors = [("LIDAR_TOP", "lidar", LIDAR), ("CAM_FRONT", "camera", FRONT)]
    sensors += [("CAM_BACK", "camera", BACK), ("RADAR_FRONT", "radar", FRONT)]
    intrinsic = [[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]
    for number, (channel, modality, placed) in enumerate(sensors):
        row = {"token": token("sensor", number), "channel": channel, "modality": modality}
        tables["sensor"].append(row)
        tables["calibrated_sensor"].append(
            {
                "token": token("calibrated", number),
                "sensor_token": token("sensor", number),
                "camera_intrinsic": intrinsic if modality == "camera" else [],
                **placed.record,
            }
        )
    for scene, name in enumerate(("scene-0061", "scene-0103")):
        _scene(tree, scene, name)
    # No reader here looks at maps; the devkit does not start without one.
    (root / "maps").mkdir(parents=True)
    PILImage.new("L", (1, 1)).save(root / "maps" / "map.png")
    tables["log"].append({"token": token("log", 0), "location": "", "logfile": ""})
    tables["map"].append(
        {"token": token("map", 0), "log_tokens": [token("log", 0)], "filename": "maps/map.png"}
    )
    # The public tables are in no order of time.
    for rows in tables.values():
        rng.shuffle(rows)  # type: ignore[arg-type]
    tree.write_tables()
    return tree


def _scene(tree: Tree, scene: int, name: str) -> None:
    tables, frames = tree.tables, 4
    epoch = 1_532_402_927_647_951 + scene * 60_000_000
    samples = [token("sample", scene, frame) for frame in range(frames)]
    tables["scene"].append(
        {
            "token": token("scene", scene),
            "name": name,
            "description": "",
            "log_token": token("log", 0),
            "nbr_samples": frames,
            "first_sample_token": samples[0],
            "last_sample_token": samples[-1],
        }
    )
    count = (frames - 1) * PER_FRAME + 1
    for step in range(count):
        frame, rest = divmod(step, PER_FRAME)
        key, seconds = rest == 0, step * SWEEP
        stamp = epoch + round(seconds * 1e6)
        frame += 0 if key else 1  # a sweep belongs to the key frame that follows
        if key:
            tree.key_times[samples[frame]] = seconds
            tables["sample"].append(
                {
                    "token": samples[frame],
                    "timestamp": stamp,
                    "scene_token": token("scene", scene),
                    "prev": samples[frame - 1] if frame else "",
                    "next": samples[frame + 1] if frame + 1 < frames else "",
                }
            )
        _sweep(tree, (scene, step, count), samples[frame], key, seconds, stamp)
        for camera in range(len(CAMERAS) if key else 0):
            _image(tree, (scene, step, camera), samples[frame], seconds - 0.01, stamp - 10_000)
    for number, thing in enumerate(tree.things):
        if thing.scene == scene:
            _annotate(tree, number, thing, samples)


def _data(
    tree: Tree, kind: str, numbers: tuple[int, ...], sensor: int, seconds: float, **row: Any
) -> str:
    data, pose = token(kind, *numbers), token(kind + "pose", *numbers)
    tree.tables["ego_pose"].append(
        {"token": pose, "timestamp": row["timestamp"], **ego(seconds).record}
    )
    tree.tables["sample_data"].append(
        {
            "token": data,
            "ego_pose_token": pose,
            "calibrated_sensor_token": token("calibrated", sensor),
            **row,
        }
    )
    return data


def _sweep(
    tree: Tree, at: tuple[int, int, int], sample: str, key: bool, seconds: float, stamp: int
) -> None:
    scene, step, count = at
    folder = f"{'samples' if key else 'sweeps'}/LIDAR_TOP"
    file = f"{folder}/n015__LIDAR_TOP__{stamp}.pcd.bin"
    data = _data(
        tree,
        "lidar",
        (scene, step),
        0,
        seconds,
        sample_token=sample,
        timestamp=stamp,
        filename=file,
        is_key_frame=key,
        fileformat="pcd",
        width=0,
        height=0,
        prev=token("lidar", scene, step - 1) if step else "",
        next=token("lidar", scene, step + 1) if step + 1 < count else "",
    )
    back = np.linalg.inv(ego(seconds).matrix @ LIDAR.matrix)
    local = tree.landmarks @ back[:3, :3].T + back[:3, 3]
    rows = np.zeros((len(local) + 1, 5), "<f4")
    rows[:-1, :3] = local
    rows[-1, :3] = [0.4, -0.3, -0.5]  # the roof of the car
    rows[:, 3] = np.arange(len(rows)) % 256
    rows[:, 4] = np.arange(len(rows)) % 32
    (tree.root / file).parent.mkdir(parents=True, exist_ok=True)
    rows.tofile(tree.root / file)
    if key:
        labels = f"lidarseg/v1.0-mini/{data}_lidarseg.bin"
        (tree.root / labels).parent.mkdir(parents=True, exist_ok=True)
        raw = np.array([index for _, index in CATEGORIES], np.uint8)
        raw[np.arange(len(rows)) % len(raw)].tofile(tree.root / labels)
        tree.tables["lidarseg"].append(
            {"token": data, "sample_data_token": data, "filename": labels}
        )


def _image(tree: Tree, at: tuple[int, int, int], sample: str, seconds: float, stamp: int) -> None:
    scene, step, camera = at
    file = f"samples/{CAMERAS[camera]}/n015__{CAMERAS[camera]}__{stamp}.jpg"
    _data(
        tree,
        "camera",
        (scene, step, camera),
        1 + camera,
        seconds,
        sample_token=sample,
        timestamp=stamp,
        filename=file,
        is_key_frame=True,
        fileformat="jpg",
        width=1600,
        height=900,
        prev="",
        next="",
    )
    (tree.root / file).parent.mkdir(parents=True, exist_ok=True)
    if scene == 0 and step == 0:
        PILImage.new("RGB", (1600, 900)).save(tree.root / file)


def _annotate(tree: Tree, number: int, thing: Thing, samples: list[str]) -> None:
    categories = [name for name, _ in CATEGORIES]
    tree.tables["instance"].append(
        {
            "token": token("instance", number),
            "category_token": token("category", categories.index(thing.category)),
            "nbr_annotations": len(thing.frames),
            "first_annotation_token": token("annotation", number, thing.frames[0]),
            "last_annotation_token": token("annotation", number, thing.frames[-1]),
        }
    )
    for place, frame in enumerate(thing.frames):
        neighbours = [
            token("annotation", number, thing.frames[other])
            if 0 <= other < len(thing.frames)
            else ""
            for other in (place - 1, place + 1)
        ]
        tree.tables["sample_annotation"].append(
            {
                "token": token("annotation", number, frame),
                "sample_token": samples[frame],
                "instance_token": token("instance", number),
                "visibility_token": "",
                "attribute_tokens": [],
                "translation": thing.centre(tree.key_times[samples[frame]]),
                "size": list(thing.size),
                "rotation": turn((0, 0, 1), thing.yaw)[1],
                "prev": neighbours[0],
                "next": neighbours[1],
                "num_lidar_pts": thing.points,
                "num_radar_pts": 0,
            }
        )
