"""Posed images of one scene, whatever layout they came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from perception.datasets.sample import Image
from perception.geometry import Camera
from perception.io import FormatError, PointCloud
from perception.io.array import load_array

__all__ = ["PosedImages", "every_eighth", "fitted", "image_size", "images_in"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
AGAIN = "copy or export it again"


@dataclass(frozen=True, eq=False)
class PosedImages:
    """The images of one scene with their cameras; pixels stay in their files.

    Attributes:
        images: the cameras' poses are world_from_camera, the camera's own frame OpenCV's (x right,
            y down, z forward), whatever the files had. Units are the files'; COLMAP, LLFF and
            Blender scenes have no metres.
        splits: ``"train"``, ``"val"``, ``"test"``: positions in ``images``, by the convention of
            the layout.
        near_far: ``[N, 2] float64``: the depths between which each image's scene lies; or None.
        points: a sparse cloud in the world frame (COLMAP's, or ``ply_file_path``); or None.
        masks: files, one an image, whose black pixels do not count; empty without masks.
        depths: files, one an image, of depth maps; empty without.
        depth_unit: metres (or world units) of 1 in a depth file.
        layout: ``"transforms"``, ``"colmap"`` or ``"llff"``.

    Raises:
        ValueError: the fields do not fit each other.
    """

    images: tuple[Image, ...]
    splits: Mapping[str, tuple[int, ...]]
    near_far: NDArray[np.float64] | None = None
    points: PointCloud | None = None
    masks: tuple[Path | None, ...] = field(default=())
    depths: tuple[Path | None, ...] = field(default=())
    depth_unit: float = 1e-3
    layout: str = ""

    def __post_init__(self) -> None:
        count = len(self.images)
        if set(self.splits) != {"train", "val", "test"} or not all(
            0 <= i < count for part in self.splits.values() for i in part
        ):
            raise ValueError(
                f"PosedImages: splits must hold positions 0 .. {count - 1} for train, val and test"
            )
        if self.near_far is not None and self.near_far.shape != (count, 2):
            raise ValueError(
                f"PosedImages: near_far must be [{count}, 2], got {list(self.near_far.shape)}"
            )
        for name in ("masks", "depths"):
            if len(getattr(self, name)) not in (0, count):
                raise ValueError(f"PosedImages: {name} must be empty or one an image")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Image:
        return self.images[index]

    def split(self, name: str) -> tuple[Image, ...]:
        """The images of ``"train"``, ``"val"`` or ``"test"``.

        Raises:
            ValueError: another name.
        """
        if name not in self.splits:
            raise ValueError(f"PosedImages: split {name!r} is none of {', '.join(self.splits)}")
        return tuple(self.images[i] for i in self.splits[name])

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """``[H, W]``: which pixels count; None where the image has no mask.

        Raises:
            FileNotFoundError, FormatError: the file is not there, is no image or of another size.
        """
        file = self.masks[index] if self.masks else None
        if file is None:
            return None
        values = Image(self.images[index].camera, file).pixels()
        return np.asarray(values[..., :3].any(axis=2))

    def depth(self, index: int) -> NDArray[np.float32] | None:
        """``[H, W]`` depths along the camera's z axis in world units, 0 = unknown; or None.

        Raises:
            FileNotFoundError, FormatError: the file is not there, no depth map or of another size.
        """
        file = self.depths[index] if self.depths else None
        if file is None:
            return self.images[index].depth
        if file.suffix.lower() == ".npy":
            values = load_array(file)
        else:
            image_size(file)
            try:
                with PILImage.open(file) as picture:
                    values = np.asarray(picture)
            except (OSError, SyntaxError, ValueError) as error:
                raise FormatError(file, f"is no readable image ({error})", AGAIN) from None
        camera = self.images[index].camera
        if values.shape[:2] != (camera.height, camera.width) or values.ndim != 2:
            raise FormatError(
                file,
                f"has shape {list(values.shape)}, its camera {camera.height} x {camera.width}",
                "depth maps are [height, width], one number a pixel",
            )
        depth = np.nan_to_num(values.astype(np.float32) * np.float32(self.depth_unit), posinf=0.0)
        return np.maximum(depth, 0)

    def focus(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The point ``[3]`` nearest to all optical axes, and its distance ``[N]`` from each.

        Cameras around an object look at it: the distances are small against those of the
        cameras. Wrong axes (OpenGL taken for OpenCV, an inverted pose) show at once.
        """
        origins = np.stack([image.camera.pose[:3, 3] for image in self.images])
        axes = np.stack([image.camera.pose[:3, 2] for image in self.images])
        across = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # [N, 3, 3]
        point = np.linalg.lstsq(
            across.sum(axis=0), (across @ origins[:, :, None]).sum(axis=0)[:, 0], rcond=None
        )[0]
        return point, np.linalg.norm((across @ (point - origins)[:, :, None])[..., 0], axis=1)


def every_eighth(count: int) -> dict[str, tuple[int, ...]]:
    """LLFF's split, which COLMAP scenes took over: images 0, 8, 16, … test, the others train."""
    return {
        "train": tuple(i for i in range(count) if i % 8),
        "val": (),
        "test": tuple(range(0, count, 8)),
    }


def image_size(file: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: it is no image.
    """
    try:
        with PILImage.open(file) as image:
            return image.size
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file}: no such image; if the images lie elsewhere, name their folder: images=..."
        ) from None
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise FormatError(file, f"is no readable image ({error})", AGAIN) from None


def images_in(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name.

    Raises:
        FileNotFoundError: the folder is not there, or holds none.
    """
    found = sorted(f for f in folder.glob("*") if f.suffix.lower() in PICTURES and f.is_file())
    if not found:
        raise FileNotFoundError(
            f"{folder}: holds no image; if the images lie elsewhere, name their folder: images=..."
        )
    return found


def fitted(camera: Camera, file: Path) -> Camera:
    """The camera for an image file that may be a smaller or larger copy of what was calibrated.

    Raises:
        FileNotFoundError, FormatError: no image there, or one of other proportions.
    """
    width, height = image_size(file)
    if (width, height) == (camera.width, camera.height):
        return camera
    # Scaled copies round each side to a whole pixel, up or down.
    scale = width / camera.width
    if abs(camera.height * scale - height) > 1 + scale:
        raise FormatError(
            file,
            f"has {width} x {height} pixels, its camera {camera.width} x {camera.height}",
            "a cropped image needs a calibration of its own",
        )
    return camera.resized(width, height)


def picture_path(root: Path, named: str, images: Sequence[Path]) -> Path:
    """Where the image that a file names lies: below ``root``, or by its name in other folders.

    The suffix may be missing, as in Blender's files.
    """
    places = [root / named]
    for folder in images:
        places = [folder / named, folder / Path(named).name]
    for place in places:
        if place.suffix.lower() in PICTURES and place.is_file():
            return place
        for suffix in PICTURES:
            file = place.with_name(place.name + suffix)
            if file.is_file():
                return file
    plain = places[-1]
    return plain if plain.suffix.lower() in PICTURES else plain.with_name(plain.name + ".png")
