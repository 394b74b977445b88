"""``read_posed``: posed images by what lies in their folder."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from perception.datasets.posed.collection import PosedImages
from perception.datasets.posed.colmap import model_folder, read_colmap
from perception.datasets.posed.llff import read_llff
from perception.datasets.posed.transforms import read_transforms

__all__ = ["layout_of", "read_posed"]

LOOKED_FOR = (
    "transforms.json or transforms_{train,val,test}.json, a COLMAP model (sparse/0/cameras.bin or "
    ".txt), poses_bounds.npy"
)


def layout_of(path: str | PathLike[str]) -> str:
    """``"transforms"``, ``"colmap"``, ``"llff"``, or ``""`` where the path is none of them.

    A folder that is several is the first: a transforms.json is made of a COLMAP model, and a
    COLMAP model knows more than the poses_bounds.npy made of it.
    """
    path = Path(path)
    if path.is_file():
        return "transforms" if path.suffix == ".json" and "transforms" in path.name else ""
    names = ("transforms.json", *(f"transforms_{split}.json" for split in ("train", "val", "test")))
    if any((path / name).is_file() for name in names):
        return "transforms"
    if model_folder(path) is not None:
        return "colmap"
    return "llff" if (path / "poses_bounds.npy").is_file() else ""


def read_posed(
    path: str | PathLike[str], *, images: str | PathLike[str] | None = None
) -> PosedImages:
    """Read the posed images of a folder (or a ``transforms.json``), of whichever layout.

    Args:
        path: the folder of a scene.
        images: where the images lie, if not where the files say, such as a scaled copy
            ``"images_4"``; relative to the folder or absolute.

    Raises:
        FileNotFoundError: there is no known layout, or an image is missing.
        FormatError: a file is damaged, or has a camera that cannot be expressed.
    """
    readers = {"transforms": read_transforms, "colmap": read_colmap, "llff": read_llff}
    path = Path(path)
    layout = layout_of(path)
    if not layout and path.is_file() and path.suffix == ".json":
        layout = "transforms"
    if not layout:
        what = "holds no posed images" if path.exists() else "no such file or folder"
        raise FileNotFoundError(f"{path}: {what}; looked for {LOOKED_FOR}")
    return readers[layout](path, images=images)
