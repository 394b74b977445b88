"""Groups of posed views of a scene: some that a network sees, others that it shall foretell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils.data import Dataset

from perception.datasets.module import DataModule, Split
from perception.datasets.sampling import Key
from perception.datasets.scenes import Scene, Scenes
from perception.geometry import Camera

__all__ = ["SceneViews", "Views", "ViewsBatch", "ViewsData", "ViewsItem", "choose_views"]


@dataclass(frozen=True)
class Views:
    """V pinhole views of one scene, or of B scenes with a dimension B before the others.

    images: `[V, 3, H, W] float32`, RGB 0..1, what is transparent on the background's colour.
    intrinsics: `[V, 3, 3] float32`, in pixels of these images; the centre of the top left pixel is
        (0.5, 0.5). Lens distortion is taken out of the images.
    world_from_camera: `[V, 4, 4] float32`; cameras look along z, x right, y down (OpenCV).
    near, far: `[V] float32`: the depths between which the scene lies, in units of the world.
    mask: `[V, H, W] bool`: which pixels count: all but those masked out or outside the lens.
    depth: `[V, H, W] float32` along the camera's z axis, 0 = unknown; None where a view has none.
    numbers: `[V] int64`, which of the scene's images they are.
    """

    images: torch.Tensor
    intrinsics: torch.Tensor
    world_from_camera: torch.Tensor
    near: torch.Tensor
    far: torch.Tensor
    mask: torch.Tensor
    depth: torch.Tensor | None
    numbers: torch.Tensor

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Views:
        """The same views on `device`."""
        return replace(
            self,
            **{
                name: value.to(device, non_blocking=non_blocking)
                for name, value in _tensors(self).items()
            },
        )

    def pin_memory(self) -> Views:
        """The same views in memory that a GPU reads while the processor goes on."""
        return replace(self, **{name: value.pin_memory() for name, value in _tensors(self).items()})


def _tensors(views: Views) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(views, field.name) for field in fields(views)}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ViewsItem:
    """Views of one scene: `inputs` to see, `targets` to foretell; `points [P, 3]`, or None."""

    inputs: Views
    targets: Views
    points: torch.Tensor | None
    name: str


@dataclass(frozen=True)
class ViewsBatch:
    """Groups of views of B scenes, on one device.

    inputs: what a network sees, `[B, V, ...]`.
    targets: what it shall foretell, `[B, V, ...]`.
    points: `[P, 3] float32` of each scene, in its world; None without.
    names: of the scenes.
    """

    inputs: Views
    targets: Views
    points: tuple[torch.Tensor | None, ...]
    names: tuple[str, ...]

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> ViewsBatch:
        """The same batch on `device`."""
        return replace(
            self,
            inputs=self.inputs.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
            points=tuple(
                None if p is None else p.to(device, non_blocking=non_blocking) for p in self.points
            ),
        )

    def pin_memory(self) -> ViewsBatch:
        """The same batch in memory that a GPU reads while the processor goes on."""
        return replace(
            self,
            inputs=self.inputs.pin_memory(),
            targets=self.targets.pin_memory(),
            points=tuple(None if p is None else p.pin_memory() for p in self.points),
        )


def collate_views(items: Sequence[ViewsItem]) -> ViewsBatch:
    """Joins groups of views of several scenes.

    Raises:
        ValueError: no groups, or images of different sizes.
    """
    if not items:
        raise ValueError("collate_views: no views to join")
    return ViewsBatch(
        inputs=_stacked([item.inputs for item in items]),
        targets=_stacked([item.targets for item in items]),
        points=tuple(item.points for item in items),
        names=tuple(item.name for item in items),
    )


def _stacked(parts: Sequence[Views]) -> Views:
    """Along a new first dimension; without depth where one has none."""
    sizes = {tuple(part.images.shape[-2:]) for part in parts}
    if len(sizes) > 1:
        raise ValueError(
            f"images of several sizes (height, width) in a batch: {sorted(sizes)}; give size: "
            "[width, height]"
        )
    shared = set.intersection(*(set(_tensors(part)) for part in parts))
    values: dict[str, Any] = {
        name: torch.stack([getattr(part, name) for part in parts]) for name in shared
    }
    return Views(**{"depth": None, **values})


def choose_views(
    count: int,
    inputs: int,
    targets: int,
    *,
    span: int | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of a scene's images are inputs and targets, each in ascending order, none twice.

    Args:
        count: images of the scene.
        inputs, targets: how many to choose.
        span: None: any images. Else so many consecutive ones of a walk or a video (or all, where
            there are fewer): the inputs evenly over them, first and last included, the targets
            between.
        rng: draws the images; None takes the middle ones, evenly spaced, the same every time.

    Raises:
        ValueError: fewer images, or a shorter span, than views.
    """
    length = count if span is None else min(span, count)
    if length < inputs + targets:
        raise ValueError(
            f"{inputs} inputs and {targets} targets of {length} images; take fewer, or a longer span"
        )
    if span is None and rng is not None:
        drawn = rng.permutation(count)
        return np.sort(drawn[:inputs]), np.sort(drawn[inputs : inputs + targets])
    spare = count - length
    start = spare // 2 if rng is None else int(rng.integers(spare + 1))
    seen = _even(length, inputs)
    rest = np.setdiff1d(np.arange(length), seen)
    which = _even(len(rest), targets) if rng is None else rng.permutation(len(rest))[:targets]
    return start + seen, start + rest[np.sort(which)]


def _even(length: int, count: int) -> NDArray[np.int64]:
    """`count` different numbers evenly over 0..length-1, both ends included; the middle if one."""
    if count == 1:
        return np.array([length // 2])
    return np.floor(np.linspace(0, length - 1, count) + 0.5).astype(np.int64)


class SceneViews(Dataset[ViewsItem]):
    """Groups of views of scenes.

    Item i is of scene `i // groups`. The item of key `(epoch, index)` has views that are a function
    of the key and the seed alone; the key `index` has those of `choose_views` without chance.

    The arguments are those of `ViewsData`; `groups` of each scene make an epoch.
    """

    def __init__(
        self,
        scenes: Scenes,
        *,
        inputs: int,
        targets: int,
        span: int | None = None,
        groups: int = 1,
        size: tuple[int, int] | None = None,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
        near_far: tuple[float, float] = (0.1, 100.0),
        depth: bool = True,
        points: int = 0,
        seed: int = 0,
    ) -> None:
        self.scenes, self.inputs, self.targets, self.span = scenes, inputs, targets, span
        self.groups, self.size, self.background, self.near_far = groups, size, background, near_far
        self.depth, self.points, self.seed = depth, points, seed

    def __len__(self) -> int:
        return len(self.scenes) * self.groups

    def __getitem__(self, key: int | Key) -> ViewsItem:
        by_chance = isinstance(key, tuple)
        epoch, index = key if isinstance(key, tuple) else (0, key)
        rng = np.random.default_rng([self.seed, epoch, index])
        number = index // self.groups
        scene = self.scenes[number]
        name = self.scenes.names[number % len(self.scenes.names)]
        try:
            seen, asked = choose_views(
                len(scene),
                self.inputs,
                self.targets,
                span=self.span,
                rng=rng if by_chance else None,
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        cloud = scene.points
        points = None
        if self.points and cloud is not None:
            some = rng.permutation(len(cloud))[: self.points]
            points = torch.from_numpy(cloud.points[np.sort(some)])
        return ViewsItem(self._views(scene, seen), self._views(scene, asked), points, name)

    def _views(self, scene: Scene, numbers: NDArray[np.int64]) -> Views:
        return _stacked([self._view(scene, number) for number in numbers.tolist()])

    def _view(self, scene: Scene, number: int) -> Views:
        image = scene[number]
        pixels = torch.from_numpy(image.pixels().astype(np.float32) / 255).movedim(-1, 0)
        if len(pixels) == 4:
            paper = torch.tensor(self.background)[:, None, None]
            pixels = pixels[:3] * pixels[3:] + paper * (1 - pixels[3:])
        given = scene.mask(number)
        mask = torch.ones(pixels.shape[1:]) if given is None else torch.from_numpy(given).float()
        known = image.depth
        if known is None and self.depth:
            known = scene.depth(number)
        depth = None if known is None else torch.from_numpy(known)
        near, far = self.near_far
        if scene.near_far is not None:
            near, far = scene.near_far[number].tolist()
        elif depth is not None and bool((depth > 0).any()):
            near, far = float(depth[depth > 0].min()), float(depth.max())
        depth = depth if self.depth else None

        camera = image.camera
        if len(camera.distortion):
            grid = _undistortion(camera)
            pixels, mask = _resampled(pixels, grid, "bilinear"), _resampled(mask, grid, "nearest")
            depth = None if depth is None else _resampled(depth, grid, "nearest")
        if self.size is not None and self.size != (camera.width, camera.height):
            camera = camera.resized(*self.size)
            height_width = (camera.height, camera.width)
            pixels = functional.interpolate(
                pixels[None], height_width, mode="bilinear", antialias=True
            )[0].clamp(0, 1)
            # Depths of two surfaces have no mean.
            mask = _nearest(mask, height_width)
            depth = None if depth is None else _nearest(depth, height_width)
        return Views(
            images=pixels.contiguous(),
            intrinsics=torch.from_numpy(camera.intrinsics).float(),
            world_from_camera=torch.from_numpy(camera.pose).float(),
            near=torch.tensor(near, dtype=torch.float32),
            far=torch.tensor(far, dtype=torch.float32),
            mask=mask > 0.5,
            depth=depth,
            numbers=torch.tensor(number),
        )


def _nearest(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(values[None, None], size, mode="nearest-exact")[0, 0]


def _undistortion(camera: Camera) -> torch.Tensor:
    """`[1, H, W, 2]`: where the pixels of a pinhole of the same matrix lie in the image, -1..1."""
    size = (camera.width, camera.height)
    _, rays = Camera(camera.intrinsics, *size, np.eye(4)).rays()
    bent = Camera(camera.intrinsics, *size, np.eye(4), camera.distortion, camera.fisheye)
    places = 2 * bent.project(rays)[0] / size - 1
    return torch.from_numpy(places.astype(np.float32)).reshape(1, camera.height, camera.width, 2)


def _resampled(values: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    """`[C, H, W]` or `[H, W]` at the places of `grid`, zeros outside."""
    flat = values.reshape(1, -1, *values.shape[-2:])
    return functional.grid_sample(flat, grid, mode=mode, align_corners=False).reshape(values.shape)


class ViewsData(DataModule[ViewsItem]):
    """Training, validation and test views for reconstruction; batches are `ViewsBatch`.

    The few-view protocol: of every scene a network sees `inputs` views and shall foretell `targets`
    others. Training draws them anew in every epoch; evaluation takes the same evenly spaced ones
    every time, one group a scene.

    Args:
        train: training scenes: `PosedScenes`, `RoomScenes`, `ObjectScenes`, or one's own
            (`perception.datasets.scenes.Scenes`).
        val: validation scenes.
        test: test scenes; None for those of the validation.
        inputs: views that are seen.
        targets: views that are foretold.
        span: None: any views of the scene; else the views are of so many consecutive ones, as in a
            walk or a video, see `choose_views`.
        groups: of views of each scene in an epoch of training.
        size: width and height in pixels that images are scaled to, with their intrinsics; None
            leaves them.
        background: red, green and blue 0..1 behind what is transparent.
        near_far: the depths between which a scene lies that neither says so nor has depth.
        depth: give the depth maps where a scene has them.
        points: how many of the scene's points to give; 0 for none.
        batch_size: groups in a training batch of one process; evaluation takes one at a time.
        num_workers: processes that make groups beside the training; 0 makes them in the process.
        seed: of the order and of the choice of views.

    Raises:
        ValueError: a number that is not positive, a colour or depths that are none.
    """

    collate = staticmethod(collate_views)

    def __init__(
        self,
        train: Scenes,
        val: Scenes,
        test: Scenes | None = None,
        *,
        inputs: int = 2,
        targets: int = 2,
        span: int | None = None,
        groups: int = 1,
        size: tuple[int, int] | None = None,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
        near_far: tuple[float, float] = (0.1, 100.0),
        depth: bool = True,
        points: int = 0,
        batch_size: int = 1,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        for name, value in (("inputs", inputs), ("targets", targets), ("groups", groups)):
            if value < 1:
                raise ValueError(f"ViewsData: {name}={value} must be one or more")
        if size is not None and min(size) < 1:
            raise ValueError(f"ViewsData: size={size} must be a positive width and height")
        if not all(0 <= value <= 1 for value in background):
            raise ValueError(f"ViewsData: background={background} must be red, green, blue in 0..1")
        if not 0 < near_far[0] < near_far[1]:
            raise ValueError(f"ViewsData: near_far={near_far} must be positive and ascend")
        self.scenes = {"train": train, "val": val, "test": val if test is None else test}
        self.groups = groups
        self._settings: dict[str, Any] = {
            "inputs": inputs,
            "targets": targets,
            "span": span,
            "size": None if size is None else tuple(size),
            "background": tuple(background),
            "near_far": near_far,
            "depth": depth,
            "points": points,
            "seed": seed,
        }

    @property
    def endless(self) -> bool:
        """Whether training never shows a scene twice."""
        return bool(getattr(self.scenes["train"], "endless", False))

    def items(self, split: Split) -> SceneViews:
        """The groups of views of a split."""
        groups = self.groups if split == "train" else 1
        return SceneViews(self.scenes[split], groups=groups, **self._settings)
