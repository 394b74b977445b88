"""Single things, about a metre in size: for reconstruction from pictures and for tests of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.posed import PosedImages
from perception.datasets.rooms import decor as de
from perception.datasets.rooms import distance as ds
from perception.datasets.rooms import furniture as fu
from perception.datasets.rooms import texture as tx
from perception.datasets.rooms.look import Look
from perception.datasets.rooms.placing import tight_box
from perception.datasets.rooms.room import look_at
from perception.datasets.rooms.scanner import fuse, posed
from perception.datasets.rooms.scene import Scene
from perception.datasets.rooms.shapes import Item, hsv
from perception.datasets.sample import Sample
from perception.geometry import Boxes3D, Camera
from perception.io import PointCloud

__all__ = ["OBJECT_CLASSES", "OBJECT_COLORS", "Object", "Objects"]


def _sculpture(r: Random, look: Look) -> Item:
    """Solids at random, each touching one before, some with solids cut out of them."""
    item = Item("clutter", r)
    spots = [(0.0, 0.0, 0.0, 0.3)]
    for k in range(r.randrange(4, 9)):
        x, y, z, size = r.choice(spots)
        a, e = r.uniform(0.0, 2.0 * math.pi), math.asin(r.uniform(-0.8, 0.9))
        reach = 0.85 * size if k else 0.0
        at = (
            x + reach * math.cos(a) * math.cos(e),
            y + reach * math.sin(a) * math.cos(e),
            z + reach * math.sin(e),
        )
        s = r.uniform(0.14, 0.3)
        spots.append((*at, s))
        turn = (r.uniform(-3.0, 3.0), r.uniform(-0.8, 0.8), r.uniform(-0.8, 0.8))
        cuts: list[list[float]] = []
        if r.random() < 0.35:
            d = 0.6 * s
            middle = (at[0] + d * r.choice((-1, 1)), at[1] + d * r.choice((-1, 1)), at[2] + d)
            cuts = item.ellipsoid(0, (0.7 * s, 0.7 * s, 0.7 * s), middle).last()
        material = _lively(r, look)
        kind = r.randrange(6)
        if kind == 0:
            size3 = (1.5 * s, s * r.uniform(0.8, 1.8), s * r.uniform(0.8, 1.8))
            item.box(material, size3, at, edge=r.choice((0.0, 0.1 * s)), turn=turn, cuts=cuts)
        elif kind == 1:
            axes = (s, s * r.uniform(0.5, 1.0), s * r.uniform(0.5, 1.0))
            item.ellipsoid(material, axes, at, turn=turn, cuts=cuts)
        elif kind == 2:
            high = s * r.uniform(0.6, 2.2)
            item.cylinder(material, 0.7 * s, high, at, edge=0.15 * s, turn=turn, cuts=cuts)
        elif kind == 3:
            top = s * r.uniform(0.1, 0.7)
            item.cone(material, 0.9 * s, top, 1.6 * s, at, turn=turn, cuts=cuts)
        elif kind == 4:
            item.torus(material, 0.8 * s, s * r.uniform(0.2, 0.35), at, turn=turn, cuts=cuts)
        else:
            item.cylinder(material, 0.45 * s, 2.4 * s, at, edge=0.45 * s, turn=turn, cuts=cuts)
    return item


def _lively(r: Random, look: Look) -> int:
    pattern = r.choice((tx.CHECKER, tx.STRIPES, tx.DOTS, tx.MARBLE, tx.WOOD, tx.PLAIN, tx.TILES))
    hue = r.random()
    return look.palette.add(
        hsv(hue, r.uniform(0.3, 0.9), r.uniform(0.4, 0.95)),
        hsv(hue + r.uniform(0.2, 0.8), r.uniform(0.1, 0.9), r.uniform(0.2, 0.95)),
        pattern=pattern,
        size=r.uniform(0.05, 0.14),
        noise=0.15,
    )


def _chair(r: Random, look: Look) -> Item:
    return fu.chair(r, look, fu.ChairStyle(r, look))


def _office_chair(r: Random, look: Look) -> Item:
    return fu.office_chair(r, look, look.cushion())


def _table(r: Random, look: Look) -> Item:
    length = r.uniform(0.9, 1.5)
    return fu.dining_table(r, look, length, r.uniform(0.7, 0.9), round_=r.random() < 0.4)


def _sofa(r: Random, look: Look) -> Item:
    return fu.armchair(r, look, fu.SofaStyle(r, look))


def _bookshelf(r: Random, look: Look) -> Item:
    return fu.bookshelf(r, look, r.choice((0.6, 0.9)), r.choice((0.85, 1.2)))


def _plant(r: Random, look: Look) -> Item:
    return de.plant(r, look, r.uniform(0.4, 1.2))


_BUILDERS: Final[dict[str, Callable[[Random, Look], Item]]] = {
    "sculpture": _sculpture,
    "chair": _chair,
    "office chair": _office_chair,
    "table": _table,
    "armchair": _sofa,
    "bookshelf": _bookshelf,
    "drawers": fu.drawers,
    "lamp": de.table_lamp,
    "plant": _plant,
    "mug": de.mug,
    "bowl": de.bowl,
    "vase": de.vase,
    "basket": de.basket,
}

#: Kinds of objects; the position is the label.
OBJECT_CLASSES: Final[tuple[str, ...]] = tuple(_BUILDERS)

#: ``[13, 3]`` RGB of each kind.
OBJECT_COLORS: Final[NDArray[np.uint8]] = np.array(
    [[round(255 * c) for c in hsv(k / 13.0, 0.75 - 0.25 * (k % 2), 0.95)] for k in range(13)],
    np.uint8,
)


class Object:
    """One textured thing on nothing, a pure function of its arguments.

    The largest side of its box is 1 m; the middle of its box is the origin; z is up.

    Args:
        seed: any integer.
        kind: one of ``OBJECT_CLASSES``; by default the seed says, one in three a sculpture of
            random solids.

    Attributes:
        scene: the exact description; its space is empty around.

    Raises:
        ValueError: there is no such kind.

    Example:
        >>> image = Object(1).views(3, size=32)[0]
        >>> image.pixels().shape, float(image.depth.max()) < 2.5
        ((32, 32, 4), True)
    """

    def __init__(self, seed: int, *, kind: str | None = None) -> None:
        self.seed = int(seed)
        r = Random(f"object {self.seed}")
        drawn = "sculpture" if r.random() < 1 / 3 else r.choice(OBJECT_CLASSES)
        self.kind = drawn if kind is None else kind
        if self.kind not in _BUILDERS:
            raise ValueError(f"Object: no kind {kind!r}; choose one of {', '.join(OBJECT_CLASSES)}")
        self.label = OBJECT_CLASSES.index(self.kind)
        look = Look(r)
        item = _BUILDERS[self.kind](r, look)
        rows = np.array(item.rows)
        cuts = np.array(item.cuts, np.float64).reshape(-1, ds.ROW)
        box = tight_box(rows, 0.0)
        scale = 1.0 / max(box[3:6])
        for part in (rows, cuts):
            part[:, :3] = (part[:, :3] - np.array(box[:3])) * scale
            part[:, ds.A : ds.ROUND + 1] *= scale
            part[:, ds.HALF : ds.HALF + 3] *= scale
        materials = look.palette.array()
        materials[:, tx.SIZE] *= scale
        # Something to match from view to view, on plain things too.
        materials[:, tx.STRENGTH] = np.maximum(materials[:, tx.STRENGTH], 0.14)
        self.boxes = Boxes3D(
            np.array([tight_box(rows, 0.0)], np.float32),
            np.array([self.label]),
            track_ids=np.array([1]),
        )
        warm = np.array([1.0, 0.96, 0.9])
        lamps = []
        for at, strength in (
            ((1.4, 1.0, 2.0), 4.0),
            ((-1.6, 0.6, 1.2), 1.6),
            ((0.2, -1.8, 1.5), 2.0),
        ):
            lamps.append([*at, 0.0, 0.0, 0.0, *(strength * warm), 0.3])
        half = 0.5 * np.array(box[3:6]) * scale + 0.01
        self.scene = Scene(
            rows,
            cuts,
            materials,
            np.array(lamps),
            np.array([0.42, 0.43, 0.45]),
            np.array([self.label], np.uint8),
            np.array([1], np.int32),
            np.stack([-half, half])[None],
        )

    def cameras(
        self,
        count: int,
        *,
        size: int = 128,
        distance: float = 2.2,
        field_of_view: float = 48.0,
        lowest: float = -20.0,
        highest: float = 75.0,
    ) -> tuple[Camera, ...]:
        """Cameras spread evenly over a zone of a sphere, looking at the middle.

        Args:
            count: of cameras; a spiral of golden angles, the same for all objects but for a turn.
            size: width and height, pixels.
            distance: from the middle, m.
            field_of_view: degrees.
            lowest, highest: elevation, degrees.
        """
        if count < 1:
            raise ValueError(f"Object: {count} cameras; ask for one or more")
        begin = Random(f"turn {self.seed}").uniform(0.0, 2.0 * math.pi)
        low, high = math.sin(math.radians(lowest)), math.sin(math.radians(highest))
        cameras = []
        for k in range(count):
            z = low + (high - low) * (k + 0.5) / count
            a, s = begin + k * math.pi * (3.0 - math.sqrt(5.0)), math.sqrt(1.0 - z * z)
            eye = (distance * s * math.cos(a), distance * s * math.sin(a), distance * z)
            pose = look_at(eye, (0.0, 0.0, 0.0))
            angle = math.radians(field_of_view)
            cameras.append(Camera.from_field_of_view(size, size, angle, pose))
        return tuple(cameras)

    def views(
        self, count: int, *, size: int = 128, samples: int = 1, distance: float = 2.2
    ) -> PosedImages:
        """RGBA pictures with exact depth from all around, every eighth for test; see ``cameras``."""
        cameras = self.cameras(count, size=size, distance=distance)
        return posed(self.scene, cameras, samples=samples, alpha=True, layout="object")

    def scan(self, *, points: int = 20_000) -> Sample:
        """A coloured cloud as from fused frames of a depth camera around the object.

        Returns:
            A ``Sample``: ``red``, ``green``, ``blue`` (uint8); every label and the box's are the
            position of its kind in ``OBJECT_CLASSES``, every instance is 1.
        """
        if points < 1:
            raise ValueError(f"Object: a scan of {points} points; ask for one or more")
        generator = np.random.default_rng(Random(f"scan object {self.seed}").getrandbits(64))
        frames = 16
        size = max(8, round(math.sqrt(24.0 * points / frames)))
        got = fuse(
            self.scene, self.cameras(frames, size=size), points, generator, cell=0.004, noise=0.3
        )
        cloud = PointCloud(
            got.points,
            {name: got.colors[:, k].copy() for k, name in enumerate(("red", "green", "blue"))},
            frame="world",
        )
        return Sample(
            cloud,
            labels=got.labels,
            instances=got.instances,
            boxes=self.boxes,
            pose=np.eye(4),
            name=f"object-{self.seed:06d}",
        )


class Objects:
    """Single objects as a data set: sample i is the scan of ``Object(first_seed + i)``.

    Args:
        num: how many.
        first_seed: of the first; the others follow.
        points: of a scan, at most.
        kinds: to take in turn; None: what the seeds say.

    Example:
        >>> 300 < len(Objects(3, points=500)[2].cloud) <= 500
        True
    """

    classes: tuple[str, ...] = OBJECT_CLASSES
    colors: NDArray[np.uint8] = OBJECT_COLORS
    box_classes: tuple[str, ...] = OBJECT_CLASSES

    def __init__(
        self,
        num: int = 1000,
        first_seed: int = 0,
        *,
        points: int = 20_000,
        kinds: Sequence[str] | None = None,
    ) -> None:
        if num < 1:
            raise ValueError(f"Objects: num is {num}; ask for one or more")
        wrong = [kind for kind in kinds or () if kind not in _BUILDERS]
        if wrong:
            raise ValueError(
                f"Objects: no kind {wrong[0]!r}; choose among {', '.join(OBJECT_CLASSES)}"
            )
        self.first_seed, self.points = int(first_seed), int(points)
        self.kinds = tuple(kinds) if kinds else None
        self.sequences: Sequence[range] = [range(i, i + 1) for i in range(num)]
        self.names: Sequence[str] = [f"object-{self.first_seed + i:06d}" for i in range(num)]

    def __len__(self) -> int:
        return len(self.names)

    def object(self, index: int) -> Object:
        """The object of a sample.

        Raises:
            IndexError: there is no such sample.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"Objects: no sample {index}, there are {len(self)}")
        index %= len(self)
        kind = None if self.kinds is None else self.kinds[index % len(self.kinds)]
        return Object(self.first_seed + index, kind=kind)

    def __getitem__(self, index: int) -> Sample:
        return self.object(index).scan(points=self.points)
