"""Two samples made one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.datasets.sample import Sample
from perception.datasets.transforms.base import Mix
from perception.datasets.transforms.rows import joined, select, spliced
from perception.datasets.transforms.similarity import Similarity, move

__all__ = ["LaserMix", "Mix3D", "PolarMix"]


@dataclass(frozen=True)
class Mix3D(Mix):
    """Both scenes in one place, out of context (Nekrasov and others, 2021).

    Objects of the two may overlap, so this is for labels of points; boxes are kept as they are.

    probability: of mixing.
    """

    probability: float = 0.8

    def __call__(self, sample: Sample, partner: Sample, rng: np.random.Generator) -> Sample:
        return joined(sample, partner)


@dataclass(frozen=True)
class LaserMix(Mix):
    """Bands of elevation, taken from the two scans in turn (Kong and others, 2023).

    A box goes with its centre, and its points with it; where boxes of the two overlap that of
    the partner is left out.

    bands: how many bands; one of these numbers is drawn.
    elevation: lowest and highest elevation in degrees that the bands divide; the outer bands go on.
    probability: of mixing.
    """

    bands: Sequence[int] = (3, 4, 5, 6)
    elevation: tuple[float, float] = (-25.0, 3.0)
    probability: float = 0.5

    def __call__(self, sample: Sample, partner: Sample, rng: np.random.Generator) -> Sample:
        low, high = np.deg2rad(self.elevation)
        edges = np.linspace(low, high, int(rng.choice(list(self.bands))) + 1)[1:-1]
        first = int(rng.integers(2))

        def mine(places: NDArray[np.float32]) -> NDArray[np.bool_]:
            rise = np.arctan2(places[:, 2], np.hypot(places[:, 0], places[:, 1]))
            return np.searchsorted(edges, rise) % 2 == first

        return _by_region(sample, partner, mine)


@dataclass(frozen=True)
class PolarMix(Mix):
    """A sector of the partner's scan, and turned copies of its objects (Xiao and others, 2022).

    A box goes with its centre, and its points with it; where boxes of the two overlap that of
    the partner is left out. Copies are made of points by their labels, without boxes, so they are
    left out of samples with boxes.

    sector: degrees of the sector; it starts anywhere.
    classes: labels of which every point of the partner is copied; empty copies nothing.
    turns: degrees by which the copies are turned about z, one copy each, each moved by up to 10
        degrees at random.
    probability: of mixing.
    """

    sector: float = 180.0
    classes: Sequence[int] = ()
    turns: Sequence[float] = (0.0, 120.0, 240.0)
    probability: float = 0.5

    def __call__(self, sample: Sample, partner: Sample, rng: np.random.Generator) -> Sample:
        start = rng.uniform(-np.pi, np.pi)
        wobble = np.deg2rad(rng.uniform(-10, 10, len(self.turns)))

        def mine(places: NDArray[np.float32]) -> NDArray[np.bool_]:
            turn = np.arctan2(places[:, 1], places[:, 0]) - start
            return turn % (2 * np.pi) >= np.deg2rad(self.sector)

        mixed = _by_region(sample, partner, mine)
        if not self.classes or partner.labels is None or partner.boxes is not None:
            return mixed
        table = np.zeros(256, bool)
        table[list(self.classes)] = True
        chosen = select(partner, table[partner.labels])
        for degrees, extra in zip(self.turns, wobble, strict=True):
            mixed = joined(mixed, move(chosen, Similarity.about_z(np.deg2rad(degrees) + extra)))
        return mixed


def _by_region(
    sample: Sample, partner: Sample, mine: Callable[[NDArray[np.float32]], NDArray[np.bool_]]
) -> Sample:
    """What lies in the region from `sample`, what does not from `partner`."""
    boxes = [
        np.zeros((0, 3), np.float32) if s.boxes is None else s.boxes.boxes[:, :3]
        for s in (sample, partner)
    ]
    return spliced(
        sample,
        mine(sample.cloud.points),
        mine(boxes[0]),
        partner,
        ~mine(partner.cloud.points),
        ~mine(boxes[1]),
    )
