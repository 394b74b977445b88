"""Scenes that are seen from many sides, by number: posed images on disk, simulated rooms and objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from os import PathLike, fspath
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.datasets.posed import PosedImages, read_posed
from perception.datasets.rooms import Object, Room
from perception.datasets.rooms import Scene as Described
from perception.datasets.sample import Image
from perception.geometry import Camera
from perception.io import PointCloud

__all__ = ["ObjectScenes", "PosedScenes", "RoomScenes", "Scene", "Scenes"]


class Scene(Protocol):
    """Posed images of one scene, such as `PosedImages`.

    Attributes:
        near_far: `[N, 2] float64`: the depths between which each image's scene lies; or None.
        points: a cloud in the frame of the cameras' poses; or None.
    """

    @property
    def near_far(self) -> NDArray[np.float64] | None: ...

    @property
    def points(self) -> PointCloud | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image: ...

    def depth(self, index: int) -> NDArray[np.float32] | None:
        """`[H, W]` along the camera's z axis, 0 = unknown; or None."""

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """`[H, W]`: which pixels count; None where all do."""


class Scenes(Protocol):
    """Scenes by number.

    Attributes:
        names: one stable name a scene.
    """

    names: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Scene: ...


class PosedScenes:
    """Scenes on disk, of any layout that `read_posed` knows.

    Args:
        paths: a folder (or `transforms.json`) a scene.
        split: only the images of `"train"`, `"val"` or `"test"` of each scene; None: all of them.
        images: where the images lie, if not where the files say, see `read_posed`.

    Raises:
        ValueError: no paths, or an unknown split.
    """

    def __init__(
        self,
        paths: Sequence[str | PathLike[str]],
        *,
        split: Literal["train", "val", "test"] | None = None,
        images: str | None = None,
    ) -> None:
        if isinstance(paths, str | PathLike):
            paths = [paths]
        if len(paths) == 0 or split not in (None, "train", "val", "test"):
            raise ValueError(
                f"PosedScenes: {len(paths)} paths, split={split!r}; give at least one folder, and "
                "train, val, test or None"
            )
        self.split, self.images = split, images
        self.names: Sequence[str] = [fspath(path) for path in paths]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Scene:
        scene = _read(self.names[index], self.images)
        return scene if self.split is None else _part(scene, scene.splits[self.split])


@lru_cache(maxsize=64)
def _read(path: str, images: str | None) -> PosedImages:
    """Cameras and names of files; the pixels stay where they are."""
    return read_posed(path, images=images)


def _part(scene: PosedImages, chosen: Sequence[int]) -> PosedImages:
    rows = list(chosen)
    return PosedImages(
        tuple(scene.images[i] for i in rows),
        {"train": tuple(range(len(rows))), "val": (), "test": ()},
        None if scene.near_far is None else scene.near_far[rows],
        scene.points,
        tuple(scene.masks[i] for i in rows) if scene.masks else (),
        tuple(scene.depths[i] for i in rows) if scene.depths else (),
        scene.depth_unit,
        scene.layout,
    )


class _Rendered:
    """A described scene before cameras; a picture is made when it is asked for."""

    near_far = None
    points = None

    def __init__(
        self, scene: Described, cameras: Sequence[Camera], *, samples: int, alpha: bool
    ) -> None:
        self.scene, self.cameras, self.samples, self.alpha = scene, cameras, samples, alpha

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: int) -> Image:
        camera = self.cameras[index]
        return self.scene.image(camera, samples=self.samples, alpha=self.alpha, name=f"{index:04d}")

    def depth(self, index: int) -> NDArray[np.float32] | None:
        return self[index].depth

    def mask(self, index: int) -> None:
        return None


class _Simulated:
    """What scenes made from a seed have in common."""

    def __init__(
        self, kind: str, num: int, first_seed: int, views: int, samples: int, endless: bool
    ) -> None:
        for name, value in {"num": num, "views": views, "samples": samples}.items():
            if value < 1:
                raise ValueError(f"{type(self).__name__}: {name} is {value}; ask for one or more")
        self.first_seed, self.views = first_seed, views
        self.samples, self.endless = samples, endless
        self.names: Sequence[str] = [f"{kind}-{first_seed + i:06d}" for i in range(num)]

    def __len__(self) -> int:
        return len(self.names)

    def seed(self, index: int) -> int:
        """Of scene ``index``."""
        if index < 0 or (index >= len(self) and not self.endless):
            raise IndexError(f"{type(self).__name__}: no scene {index}, there are {len(self)}")
        return self.first_seed + index


class RoomScenes(_Simulated):
    """Simulated rooms, photographed along a walk: scene i is `Room(first_seed + i)`.

    Args:
        num: how many.
        first_seed: of the first; the others follow.
        views: pictures along the walk; only those that are used are rendered.
        width, height: pixels.
        field_of_view: horizontal, degrees.
        samples: colour is the mean of `samples` x `samples` rays a pixel.
        endless: indices beyond `num` count on to ever new rooms; `len()` stays `num`.

    Raises:
        ValueError: a number that is not positive.
    """

    def __init__(
        self,
        num: int = 1000,
        first_seed: int = 0,
        *,
        views: int = 64,
        width: int = 200,
        height: int = 150,
        field_of_view: float = 75.0,
        samples: int = 1,
        endless: bool = False,
    ) -> None:
        super().__init__("room", num, first_seed, views, samples, endless)
        self.width, self.height, self.field_of_view = width, height, field_of_view

    def __getitem__(self, index: int) -> Scene:
        room = _room(self.seed(index))
        cameras = room.cameras(
            self.views, width=self.width, height=self.height, field_of_view=self.field_of_view
        )
        return _Rendered(room.scene, cameras, samples=self.samples, alpha=False)


class ObjectScenes(_Simulated):
    """Simulated objects on nothing (RGBA), seen from all around: scene i is `Object(first_seed + i)`.

    Args:
        num: how many.
        first_seed: of the first; the others follow.
        views: cameras around the object; only those that are used are rendered.
        size: width and height, pixels.
        distance: of the cameras from the object's middle, m; the object is 1 m long.
        samples: colour and coverage are the means of `samples` x `samples` rays a pixel.
        endless: indices beyond `num` count on to ever new objects; `len()` stays `num`.

    Raises:
        ValueError: a number that is not positive.
    """

    def __init__(
        self,
        num: int = 1000,
        first_seed: int = 0,
        *,
        views: int = 64,
        size: int = 128,
        distance: float = 2.2,
        samples: int = 1,
        endless: bool = False,
    ) -> None:
        super().__init__("object", num, first_seed, views, samples, endless)
        self.size, self.distance = size, distance

    def __getitem__(self, index: int) -> Scene:
        thing = _object(self.seed(index))
        cameras = thing.cameras(self.views, size=self.size, distance=self.distance)
        return _Rendered(thing.scene, cameras, samples=self.samples, alpha=True)


@lru_cache(maxsize=8)
def _room(seed: int) -> Room:
    return Room(seed)


@lru_cache(maxsize=8)
def _object(seed: int) -> Object:
    return Object(seed)
