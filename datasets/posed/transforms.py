"""``transforms.json``: Blender's synthetic scenes, instant-ngp, nerfstudio.

Formats: https://github.com/bmild/nerf, https://github.com/NVlabs/instant-ngp (docs/nerf_dataset_tips.md),
https://docs.nerf.studio/quickstart/data_conventions.html. Poses are camera-to-world with OpenGL's
axes (x right, y up, z backward).
"""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.datasets.posed.collection import PosedImages, fitted, image_size, picture_path
from perception.datasets.sample import Image
from perception.geometry import Camera
from perception.io import FormatError, PointCloud, read

__all__ = ["read_transforms"]

SPLITS = ("train", "val", "test")
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
AGAIN = "export it again"


def read_transforms(
    path: str | PathLike[str], *, images: str | PathLike[str] | None = None
) -> PosedImages:
    """Read a ``.json`` file, or the ``transforms*.json`` of a folder.

    ``transforms_train.json``, ``_val`` and ``_test`` make the splits; a single file's are its
    ``train_filenames``, ``val_filenames`` and ``test_filenames``, without which all is train.

    Args:
        path: the file or folder.
        images: a folder, relative to that of the file or absolute, that holds the images under
            the same names, such as ``"images_4"``; sizes of the cameras follow.

    Raises:
        FileNotFoundError: no such file, or an image is missing.
        FormatError: the file is damaged or has a camera that cannot be expressed.
    """
    path = Path(path)
    files: dict[str, Path]
    if path.is_dir():
        files = {split: path / f"transforms_{split}.json" for split in SPLITS}
        files = {split: file for split, file in files.items() if file.is_file()}
        if not files:
            files = {"": path / "transforms.json"}
    else:
        split = path.stem.removeprefix("transforms_")
        files = {split if split in SPLITS else "": path}
    found: list[Image] = []
    masks: list[Path | None] = []
    depths: list[Path | None] = []
    splits: dict[str, tuple[int, ...]] = {split: () for split in SPLITS}
    points: PointCloud | None = None
    unit = 1e-3
    for split, file in files.items():
        content = _content(file)
        first = len(found)
        names = []
        for number, frame in enumerate(content["frames"]):
            image = _image(file, content, frame, number, images)
            names.append(str(frame["file_path"]))
            found.append(image)
            masks.append(_beside(file, frame, "mask_path"))
            depths.append(_beside(file, frame, "depth_file_path"))
        if split:
            splits[split] = tuple(range(first, len(found)))
        else:
            splits = _listed(file, content, names)
        if isinstance(content.get("ply_file_path"), str) and points is None:
            points = read(file.parent / content["ply_file_path"]).replace(frame="world")
        unit = _number(file, content, "integer_depth_scale", unit)
    return PosedImages(
        tuple(found),
        splits,
        points=points,
        masks=tuple(masks) if any(masks) else (),
        depths=tuple(depths) if any(depths) else (),
        depth_unit=unit,
        layout="transforms",
    )


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such file; check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(file, f"is no JSON ({error})", AGAIN) from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise FormatError(file, "has no list 'frames'", f"it is no transforms.json; {AGAIN}")
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise FormatError(file, f"frame {number} has no 'file_path'", AGAIN)
    return content


def _number(
    file: Path,
    source: dict[str, Any],
    key: str,
    default: float,
    frame: dict[str, Any] | None = None,
) -> float:
    value = (frame or {}).get(key, source.get(key, default))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise FormatError(file, f"has {key} = {str(value)[:40]!r}, no number", AGAIN)
    return float(value)


def _image(
    file: Path,
    content: dict[str, Any],
    frame: dict[str, Any],
    number: int,
    images: str | PathLike[str] | None,
) -> Image:
    folders = [] if images is None else [file.parent / images]
    source = picture_path(file.parent, frame["file_path"], folders)

    def value(key: str, default: float = 0.0) -> float:
        return _number(file, content, key, default, frame)

    if value("w") and value("h"):
        width, height = int(value("w")), int(value("h"))
    else:
        width, height = image_size(source)
    fx = value("fl_x") or _focal(file, width, value("camera_angle_x"))
    # Without fl_y pixels are square; camera_angle_y says otherwise.
    fy = value("fl_y") or (
        _focal(file, height, value("camera_angle_y")) if value("camera_angle_y") else fx
    )
    intrinsics = np.array(
        [[fx, 0, value("cx") or width / 2], [0, fy, value("cy") or height / 2], [0, 0, 1]]
    )
    distortion, fisheye = _lens(file, content, frame, value)
    try:
        matrix = np.array(frame["transform_matrix"], np.float64)
        if matrix.shape not in ((4, 4), (3, 4)):
            raise ValueError(f"shape {list(matrix.shape)}")
        matrix = np.vstack([matrix[:3], [0, 0, 0, 1]])
        pose = matrix @ OPENCV_FROM_OPENGL
        camera = Camera(intrinsics, width, height, pose, distortion, fisheye)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(file, f"frame {number} has no valid camera ({error})", AGAIN) from None
    return Image(fitted(camera, source), source, name=Path(frame["file_path"]).stem)


def _focal(file: Path, width: int, angle: float) -> float:
    if not 0 < angle < math.pi:
        raise FormatError(
            file,
            "has neither fl_x nor camera_angle_x in radians",
            "give the focal length in pixels, or the horizontal field of view",
        )
    return width / (2 * math.tan(angle / 2))


def _lens(
    file: Path, content: dict[str, Any], frame: dict[str, Any], value: Any
) -> tuple[NDArray[np.float64], bool]:
    """Distortion in OpenCV's order, and whether it is a fisheye's."""
    model = str(frame.get("camera_model", content.get("camera_model", "OPENCV")))
    if frame.get("is_fisheye", content.get("is_fisheye")) is True:
        model = "OPENCV_FISHEYE"
    if model not in MODELS:
        raise FormatError(
            file,
            f"has camera model {model[:40]!r}",
            f"undistort the images; known: {', '.join(MODELS)}",
        )
    k1, k2, k3, k4 = (value(f"k{i}") for i in (1, 2, 3, 4))
    p1, p2 = value("p1"), value("p2")
    if model == "OPENCV_FISHEYE":
        if p1 or p2:
            raise FormatError(file, "has a fisheye with p1, p2", "undistort the images")
        return np.array([k1, k2, k3, k4]), True
    if k4:
        raise FormatError(file, "has k4 without OPENCV_FISHEYE", "undistort the images")
    if k3:
        return np.array([k1, k2, p1, p2, k3]), False
    return np.array([k1, k2, p1, p2] if any((k1, k2, p1, p2)) else []), False


def _beside(file: Path, frame: dict[str, Any], key: str) -> Path | None:
    value = frame.get(key)
    return file.parent / value if isinstance(value, str) and value else None


def _listed(file: Path, content: dict[str, Any], names: list[str]) -> dict[str, tuple[int, ...]]:
    """The splits of nerfstudio's lists of file names."""
    given = {split: content.get(f"{split}_filenames") for split in SPLITS}
    if not any(isinstance(value, list) for value in given.values()):
        return {"train": tuple(range(len(names))), "val": (), "test": ()}
    place = {name: i for i, name in enumerate(names)}
    splits: dict[str, tuple[int, ...]] = {}
    for split, wanted in given.items():
        wanted = wanted or []
        missing = [name for name in wanted if name not in place]
        if missing:
            raise FormatError(
                file, f"lists {str(missing[0])[:60]!r} in {split}_filenames, no frame has it", AGAIN
            )
        splits[split] = tuple(place[name] for name in wanted)
    return splits
