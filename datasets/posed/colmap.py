"""COLMAP's sparse models, binary and text (https://colmap.github.io/format.html).

Poses in the files are camera-from-world: a quaternion (w, x, y, z) and a translation, in OpenCV's
axes. The centre of the top left pixel is (0.5, 0.5), as in :class:`perception.geometry.Camera`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.posed.collection import PosedImages, every_eighth, fitted, picture_path
from perception.datasets.readers.rotations import pose_matrices
from perception.datasets.sample import Image
from perception.geometry import Camera, invert
from perception.io import FormatError, PointCloud

__all__ = ["model_folder", "read_colmap"]

# id: name, number of parameters (colmap/src/colmap/sensor/models.h).
MODELS: Final[dict[int, tuple[str, int]]] = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
}
AGAIN = "the model is damaged or truncated; export it again"
UNDISTORT = "undistort the images: colmap image_undistorter"
LONGEST_NAME = 4096  # bytes


@dataclass(frozen=True)
class _Lens:
    """A line of ``cameras``: what `Camera` needs but the pose."""

    model: str
    width: int
    height: int
    numbers: tuple[float, ...]

    def camera(self, pose: NDArray[np.float64]) -> Camera:
        """
        Raises:
            ValueError: the model cannot be expressed, or its numbers are no camera's.
        """
        n = self.numbers
        single = self.model in (
            "SIMPLE_PINHOLE",
            "SIMPLE_RADIAL",
            "RADIAL",
            "SIMPLE_RADIAL_FISHEYE",
            "RADIAL_FISHEYE",
        )
        fx, fy, cx, cy = (n[0], *n[:3]) if single else n[:4]
        rest = n[3:] if single else n[4:]
        distortion: tuple[float, ...]
        if self.model in ("SIMPLE_PINHOLE", "PINHOLE"):
            distortion, fisheye = (), False
        elif self.model in ("SIMPLE_RADIAL", "RADIAL"):
            distortion, fisheye = (*rest, *[0.0] * (4 - len(rest))), False
        elif self.model in ("OPENCV", "FULL_OPENCV"):
            distortion, fisheye = rest, False
        elif self.model in ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"):
            distortion, fisheye = (*rest, *[0.0] * (4 - len(rest))), True
        else:
            raise ValueError(f"has camera model {self.model}, which has no OpenCV counterpart")
        intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        return Camera(intrinsics, self.width, self.height, pose, np.array(distortion), fisheye)


@dataclass(frozen=True)
class _View:
    """A line of ``images``."""

    name: str
    lens: int
    turn: tuple[float, ...]  # w, x, y, z
    shift: tuple[float, ...]

    def pose(self) -> NDArray[np.float64]:
        """World from camera, ``[4, 4]``."""
        return invert(pose_matrices(self.shift, self.turn))


def model_folder(root: Path) -> Path | None:
    """The folder of a COLMAP model at or below a scene's folder."""
    for name in ("", "sparse/0", "sparse", "colmap/sparse/0"):
        for suffix in (".bin", ".txt"):
            if all((root / name / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
                return root / name
    return None


def read_colmap(
    path: str | PathLike[str], *, images: str | PathLike[str] | None = None
) -> PosedImages:
    """Read a scene's folder with ``sparse/0`` and ``images``, or a model's folder itself.

    Images are sorted by name, every eighth is test. Binary files are preferred to text.

    Args:
        path: the folder.
        images: the folder of the images, relative or absolute; by default ``images`` beside the
            model or up to two folders above. Cameras follow the images' size.

    Raises:
        FileNotFoundError: a file or an image is missing.
        FormatError: a file is damaged, or a camera model has no OpenCV counterpart.
    """
    root = Path(path)
    model = model_folder(root)
    if model is None:
        raise FileNotFoundError(
            f"{root}: holds no COLMAP model; looked for cameras and images, .bin or .txt, in it, "
            "in sparse/0 and in sparse"
        )
    suffix = ".bin" if (model / "cameras.bin").is_file() else ".txt"
    lenses_file, views_file = model / f"cameras{suffix}", model / f"images{suffix}"
    points_file = model / f"points3D{suffix}"
    lenses = (_cameras_bin if suffix == ".bin" else _cameras_txt)(lenses_file)
    views = (_images_bin if suffix == ".bin" else _images_txt)(views_file)
    points = None
    if points_file.is_file():
        points = (_points_bin if suffix == ".bin" else _points_txt)(points_file)
    if images is None:
        places = [root, model, model.parent, model.parent.parent]
        folder = next((p / "images" for p in places if (p / "images").is_dir()), root / "images")
    else:
        folder = root / images
    found = []
    for view in sorted(views, key=lambda view: view.name):
        if view.lens not in lenses:
            raise FormatError(
                views_file, f"names camera {view.lens}, which {lenses_file.name} has not", AGAIN
            )
        try:
            camera = lenses[view.lens].camera(view.pose())
        except (ValueError, OverflowError) as error:
            raise FormatError(
                lenses_file, f"camera {view.lens} {error}".replace("Camera: ", ""), UNDISTORT
            ) from None
        source = picture_path(folder, view.name, [folder])
        found.append(Image(fitted(camera, source), source, name=Path(view.name).stem))
    return PosedImages(tuple(found), every_eighth(len(found)), points=points, layout="colmap")


class _Bytes:
    """A file read from front to back; going beyond its end is a :class:`FormatError`."""

    def __init__(self, file: Path) -> None:
        self.file, self.data, self.at = file, file.read_bytes(), 0

    def take(self, layout: struct.Struct) -> tuple[float, ...]:
        if self.at + layout.size > len(self.data):
            raise FormatError(self.file, f"ends after {len(self.data)} bytes", AGAIN)
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def skip(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise FormatError(self.file, f"ends after {len(self.data)} bytes", AGAIN)
        self.at += count

    def count(self, least: int) -> int:
        """How many records of at least so many bytes follow; as many as there is room for."""
        number = int(self.take(struct.Struct("<Q"))[0])
        if number * least > len(self.data) - self.at:
            raise FormatError(self.file, f"is too short for {number} records", AGAIN)
        return number

    def text(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + LONGEST_NAME)
        if end < 0:
            raise FormatError(self.file, "has a name without an end", AGAIN)
        name = self.data[self.at : end].decode("utf-8", errors="replace")
        self.at = end + 1
        return name


def _cameras_bin(file: Path) -> dict[int, _Lens]:
    stream = _Bytes(file)
    lenses = {}
    for _ in range(stream.count(24)):
        number, model, width, height = map(int, stream.take(struct.Struct("<IiQQ")))
        if model not in MODELS:
            raise FormatError(file, f"has the unknown camera model {model}", UNDISTORT)
        name, length = MODELS[model]
        numbers = stream.take(struct.Struct(f"<{length}d"))
        lenses[number] = _lens(file, name, width, height, numbers)
    return lenses


def _lens(file: Path, name: str, width: int, height: int, numbers: tuple[float, ...]) -> _Lens:
    if not np.isfinite(numbers).all() or not (0 < width < 1 << 20 and 0 < height < 1 << 20):
        raise FormatError(file, f"has an impossible camera of {width} x {height} pixels", AGAIN)
    return _Lens(name, width, height, numbers)


def _view(
    file: Path, name: str, lens: int, turn: tuple[float, ...], shift: tuple[float, ...]
) -> _View:
    good = np.isfinite([*turn, *shift]).all()
    if not good or not 1e-6 < np.linalg.norm(turn) < 1e6:
        raise FormatError(file, f"has no rotation for image {name[:60]!r}", AGAIN)
    if not name or "\n" in name or "\0" in name:
        raise FormatError(file, f"has an image without a name, {name[:60]!r}", AGAIN)
    return _View(name, lens, turn, shift)


def _images_bin(file: Path) -> list[_View]:
    stream = _Bytes(file)
    views = []
    head = struct.Struct("<I7dI")
    for _ in range(stream.count(head.size + 9)):
        _, *numbers, lens = stream.take(head)
        name = stream.text()
        stream.skip(24 * int(stream.take(struct.Struct("<Q"))[0]))  # where it saw which points
        views.append(_view(file, name, int(lens), tuple(numbers[:4]), tuple(numbers[4:])))
    return _some(file, views)


def _points_bin(file: Path) -> PointCloud | None:
    stream = _Bytes(file)
    head = struct.Struct("<Q3d3BdQ")
    rows = []
    for _ in range(stream.count(head.size)):
        _, *values, track = stream.take(head)
        stream.skip(8 * int(track))
        rows.append(values)
    return _cloud(file, rows)


def _some(file: Path, views: list[_View]) -> list[_View]:
    if not views:
        raise FormatError(file, "holds no image", "the model is empty; run COLMAP again")
    return views


def _cloud(file: Path, rows: list[list[float]]) -> PointCloud | None:
    """A cloud of rows x y z r g b error; None for none."""
    if not rows:
        return None
    table = np.array(rows, np.float64)
    if not np.isfinite(table).all() or np.abs(table[:, :3]).max() > np.finfo(np.float32).max:
        raise FormatError(file, "holds points that are not finite", AGAIN)
    colours = dict(zip(("red", "green", "blue"), table[:, 3:6].T.astype(np.uint8), strict=True))
    with np.errstate(over="ignore"):
        error = {"error": table[:, 6].astype(np.float32)}
    return PointCloud(table[:, :3].astype(np.float32), {**colours, **error}, frame="world")


def _lines(file: Path) -> list[list[str]]:
    """The words of each line that is no comment; empty lines stay, they mean something."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def _cameras_txt(file: Path) -> dict[int, _Lens]:
    lengths = dict(MODELS.values())
    lenses = {}
    for words in _lines(file):
        if not words:
            continue
        try:
            name, width, height = words[1], int(words[2]), int(words[3])
            numbers = tuple(float(word) for word in words[4:])
            if name not in lengths:
                raise FormatError(file, f"has the unknown camera model {name[:40]!r}", UNDISTORT)
            if len(numbers) != lengths[name]:
                raise ValueError(f"{name} has {lengths[name]} parameters")
            lenses[int(words[0])] = _lens(file, name, width, height, numbers)
        except FormatError:
            raise
        except (ValueError, IndexError) as error:
            raise FormatError(
                file, f"has a broken line {' '.join(words)[:60]!r} ({error})", AGAIN
            ) from None
    return lenses


def _images_txt(file: Path) -> list[_View]:
    lines = _lines(file)
    while lines and not lines[0]:
        lines.pop(0)
    views = []
    for words in lines[::2]:  # the other lines hold where the image saw which points
        if not words:
            continue
        try:
            numbers = [float(word) for word in words[1:8]]
            int(words[0])
            lens, name = int(words[8]), " ".join(words[9:])
        except (ValueError, IndexError) as error:
            raise FormatError(
                file, f"has a broken line {' '.join(words)[:60]!r} ({error})", AGAIN
            ) from None
        views.append(_view(file, name, lens, tuple(numbers[:4]), tuple(numbers[4:])))
    return _some(file, views)


def _points_txt(file: Path) -> PointCloud | None:
    rows = []
    for words in _lines(file):
        if not words:
            continue
        try:
            row = [float(word) for word in words[1:8]]
            if len(row) != 7 or not all(0 <= value <= 255 for value in row[3:6]):
                raise ValueError("x y z r g b error")
        except ValueError as error:
            raise FormatError(
                file, f"has a broken line {' '.join(words)[:60]!r} ({error})", AGAIN
            ) from None
        rows.append(row)
    return _cloud(file, rows)
