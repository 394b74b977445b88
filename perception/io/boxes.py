"""Box files: this package's JSON, numpy arrays, and text.

JSON holds ``{"boxes": [[x, y, z, length, width, height, yaw], ...], "box_labels": [...]}`` and, as
far as known, ``"classes"`` (names of the labels), ``"box_scores"``, ``"velocity"`` (``[M, 2]``) and
``"track_ids"``; the frame is that of the points. Text holds a box a line: either
``x y z length width height yaw name`` in the frame of the points (as OpenPCDet's custom data sets
have it), or KITTI's ``label_2``.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perception.geometry import Boxes3D
from perception.io.array import load_array
from perception.io.errors import FormatError
from perception.io.files import existing_file

FAR = 1e7  # metres; what is farther is no box


class NamedBoxes(NamedTuple):
    """Boxes, and the names of their classes as far as the file gives them."""

    boxes: Boxes3D
    names: tuple[str, ...]


def read_boxes(path: str | PathLike[str]) -> NamedBoxes:
    """Read boxes: ``.json``, ``.npy`` ``[M, 7]``, or ``.txt`` of eight columns or KITTI's ``label_2``.

    A KITTI label file is in the camera's frame; the calibration ``../calib/NAME.txt`` beside it
    takes it to the LiDAR's. ``DontCare`` regions are left out.

    Raises:
        FileNotFoundError: the file, or the calibration it needs, is missing.
        FormatError: the file holds no such boxes.
    """
    file = existing_file(path)
    suffix = file.suffix.lower()
    try:
        if suffix == ".json":
            return _from_json(file)
        if suffix == ".npy":
            rows = load_array(file)
            return NamedBoxes(_boxes(file, rows, np.zeros(len(rows), np.int64)), ())
        if suffix == ".txt":
            return _from_text(file)
    except (FormatError, FileNotFoundError):
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        OSError,
        RecursionError,
    ) as error:
        raise FormatError(
            file, f"cannot be read as boxes ({error})", "see perception.io.boxes for the formats"
        ) from None
    raise FormatError(file, f"has an unknown suffix {suffix!r}", "known are .json, .npy, .txt")


def write_boxes(
    path: str | PathLike[str],
    boxes: Boxes3D,
    *,
    scores: np.ndarray | None = None,
    names: tuple[str, ...] = (),
) -> None:
    """Write boxes as JSON."""
    content: dict[str, object] = {
        "boxes": [[round(float(value), 4) for value in row] for row in boxes.boxes],
        "box_labels": boxes.labels.tolist(),
        "classes": list(names),
    }
    if boxes.velocity is not None:
        content["velocity"] = [[round(float(v), 4) for v in row] for row in boxes.velocity]
    if boxes.track_ids is not None:
        content["track_ids"] = boxes.track_ids.tolist()
    if scores is not None:
        content["box_scores"] = [round(float(score), 5) for score in scores]
    Path(path).write_text(json.dumps(content, indent=1))


def _boxes(
    file: Path,
    rows: np.ndarray,
    labels: np.ndarray,
    velocity: np.ndarray | None = None,
    track_ids: np.ndarray | None = None,
) -> Boxes3D:
    rows = np.asarray(rows, dtype=np.float64)
    if rows.size == 0:
        rows = rows.reshape(0, 7)
    if rows.ndim != 2 or rows.shape[1] < 7 or not np.isfinite(rows).all():
        raise FormatError(
            file,
            f"holds boxes of shape {list(rows.shape)}",
            "expected finite numbers [M, 7]: x, y, z, length, width, height, yaw",
        )
    if len(rows) and (rows[:, 3:6].min() < 0 or np.abs(rows[:, :6]).max() > FAR):
        row = int(((rows[:, 3:6] < 0).any(1) | (np.abs(rows[:, :6]) > FAR).any(1)).argmax())
        raise FormatError(
            file,
            f"box {row} is {[round(float(value), 3) for value in rows[row, :7]]}",
            "expected x, y, z, length, width, height, yaw in metres and radians",
        )
    return Boxes3D(
        rows[:, :7].astype(np.float32), np.asarray(labels, dtype=np.int64), velocity, track_ids
    )


def _from_json(file: Path) -> NamedBoxes:
    content = json.loads(file.read_text())
    if isinstance(content, list):
        content = {"boxes": content}
    rows = content["boxes"]
    if rows is None:
        raise FormatError(file, "holds no boxes", "its task gave labels only")
    labels = content.get("box_labels") or np.zeros(len(rows), np.int64)
    names = tuple(str(name) for name in content.get("classes") or ())
    velocity, track_ids = content.get("velocity"), content.get("track_ids")
    boxes = _boxes(
        file,
        np.array(rows, dtype=np.float64),
        labels,
        None if velocity is None else np.array(velocity, np.float32).reshape(-1, 2),
        None if track_ids is None else np.array(track_ids, np.int64),
    )
    if names and len(boxes) and not 0 <= boxes.labels.min() <= boxes.labels.max() < len(names):
        raise FormatError(
            file, f"has box_labels beyond its {len(names)} classes", "name every class"
        )
    return NamedBoxes(boxes, names)


def _from_text(file: Path) -> NamedBoxes:
    lines = [line.split() for line in file.read_text().splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    # KITTI's lines have 15 or 16 words, first the type. An empty file is a scan without objects.
    kitti = bool(lines) and len(lines[0]) >= 15 and not _is_number(lines[0][0])
    return _from_kitti(file) if kitti else _from_rows(file, lines)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _from_rows(file: Path, lines: list[list[str]]) -> NamedBoxes:
    kinds = []
    for number, words in enumerate(lines, start=1):
        if len(words) != 8 or _is_number(words[7]):
            raise FormatError(
                file,
                f"has the box {number} {' '.join(words)[:60]!r}",
                "expected lines of x y z length width height yaw name, or KITTI's",
            )
        kinds.append(words[7])
    names = tuple(sorted(set(kinds)))
    rows = np.array([[float(word) for word in words[:7]] for words in lines])
    labels = np.array([names.index(kind) for kind in kinds], dtype=np.int64)
    return NamedBoxes(_boxes(file, rows, labels), names)


def _from_kitti(file: Path) -> NamedBoxes:
    calibration = file.parent.parent / "calib" / file.name
    if not calibration.is_file():
        raise FileNotFoundError(
            f"{calibration}: no such file; a KITTI label file needs its calibration"
        )
    matrices: dict[str, np.ndarray] = {}
    for line in calibration.read_text().splitlines():
        key, _, numbers = line.partition(":")
        if numbers:
            matrices[key.strip()] = np.array([float(word) for word in numbers.split()])
    rectify, lidar_to_camera = np.eye(4), np.eye(4)
    rectify[:3, :3] = matrices["R0_rect"].reshape(3, 3)
    lidar_to_camera[:3] = matrices["Tr_velo_to_cam"].reshape(3, 4)
    to_lidar = np.linalg.inv(rectify @ lidar_to_camera)
    rows, kinds = [], []
    for line in file.read_text().splitlines():
        words = line.split()
        if not words or words[0] == "DontCare":
            continue
        height, width, length, x, y, z, turn = (float(word) for word in words[8:15])
        # KITTI gives the centre of the bottom, and the turn about the camera's downward axis.
        bottom = to_lidar @ np.array([x, y, z, 1.0])
        yaw = (-turn - np.pi / 2 + np.pi) % (2 * np.pi) - np.pi
        rows.append([bottom[0], bottom[1], bottom[2] + height / 2, length, width, height, yaw])
        kinds.append(words[0])
    names = tuple(sorted(set(kinds)))
    labels = np.array([names.index(kind) for kind in kinds], dtype=np.int64)
    return NamedBoxes(_boxes(file, np.array(rows), labels), names)
