"""LLFF's ``poses_bounds.npy`` (https://github.com/Fyusion/LLFF): real forward-facing scenes.

A row of 17 numbers an image, in the order of the images' names: a 3x5 matrix, whose columns are the
camera's down, right and backward axes in the world, its position, and (height, width, focal length);
then the nearest and farthest depth of the scene.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from perception.datasets.posed.collection import PosedImages, every_eighth, fitted, images_in
from perception.datasets.sample import Image
from perception.geometry import Camera
from perception.io import FormatError
from perception.io.array import load_array
from perception.io.files import existing_file

__all__ = ["read_llff"]

AGAIN = "export it again"


def read_llff(
    path: str | PathLike[str], *, images: str | PathLike[str] | None = None
) -> PosedImages:
    """Read a folder with ``poses_bounds.npy`` and its images; every eighth is test.

    Args:
        path: the folder.
        images: the folder of the images, relative or absolute; by default ``images``, else the
            largest scaled copy (``images_4``, ``images_8``). Cameras follow the images' size.

    Raises:
        FileNotFoundError: a file or folder is missing.
        FormatError: the file is damaged, or there is another number of images.
    """
    root = Path(path)
    file = existing_file(root / "poses_bounds.npy")
    rows = load_array(file)
    if rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind != "f" or not len(rows):
        raise FormatError(file, f"has shape {list(rows.shape)}, expected [N, 17] numbers", AGAIN)
    if not np.isfinite(rows).all():
        raise FormatError(file, "holds numbers that are not finite", AGAIN)
    pictures = images_in(_folder(root) if images is None else root / images)
    if len(pictures) != len(rows):
        raise FormatError(
            file,
            f"has {len(rows)} poses for {len(pictures)} images in {pictures[0].parent}",
            "restore the images that were posed, no more and no fewer",
        )
    found = []
    for number, (row, picture) in enumerate(zip(rows.astype(np.float64), pictures, strict=True)):
        matrix = row[:15].reshape(3, 5)
        height, width, focal = matrix[:, 4]
        pose = np.stack([matrix[:, 1], matrix[:, 0], -matrix[:, 2], matrix[:, 3]], axis=1)
        try:
            intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
            camera = Camera(intrinsics, round(width), round(height), pose)
        except ValueError as error:
            raise FormatError(file, f"row {number} has no valid camera ({error})", AGAIN) from None
        found.append(Image(fitted(camera, picture), picture, name=picture.stem))
    bounds = rows[:, 15:].astype(np.float64)
    return PosedImages(tuple(found), every_eighth(len(found)), near_far=bounds, layout="llff")


def _folder(root: Path) -> Path:
    for name in ("images", "images_2", "images_4", "images_8"):
        if (root / name).is_dir():
            return root / name
    return root / "images"
