"""The networks that are compared, and what makes one prediction of several frames'."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from perception.datasets.street import CLASSES
from perception.models import MinkUNet, MinkUNetCRF
from perception.sparse import SparseTensor
from perception.tools.study.batch import CHANNELS, Batch

__all__ = ["METHODS", "ROWS", "WIDTHS", "Method", "Row", "averaged", "network", "scores"]

WIDTHS: Final = (24, 24, 48, 96, 128, 96, 64, 48, 48)
"""Channels of stem, four encoder and four decoder stages, of every network."""


@dataclass(frozen=True)
class Method:
    """A network that is trained.

    dim: 3: every frame is a sample; 4: a window is one.
    kernel: of the convolutions.
    crf: arguments of the CRF behind it; None: there is none.
    fixed: whether the CRF is trained alone, behind the finished network of the same seed.
    """

    dim: int
    kernel: str = "cube"
    crf: dict[str, Any] | None = field(default=None)
    fixed: bool = False


# Two cells of time in a window of five frames: the newest frame shares its cell with the one before.
_CRF: Final[dict[str, Any]] = {
    "color": [0],
    "sigma_color": 0.3,
    "sigma_time": 2.5,
    "crf_kernel": "hybrid",
    "smoothing": 8.0,
}

METHODS: Final[dict[str, Method]] = {
    "3d": Method(3),
    "cube": Method(4, "cube"),
    "hybrid": Method(4, "hybrid"),
    "crf": Method(4, "hybrid", _CRF),
    "crf-fixed": Method(4, "hybrid", _CRF, fixed=True),
}


@dataclass(frozen=True)
class Row:
    """A row of the table: what is done with the scores of a trained network.

    method: the network; radius: None: its scores as they are, else see `averaged`.
    published: mIoU on Synthia in Choy and others (CVPR 2019), table 2; None where there is none.
    """

    name: str
    method: str
    radius: int | None = None
    published: float | None = None


ROWS: Final[dict[str, Row]] = {
    "3d": Row("3D, single frame", "3d", None, 76.2),
    "average": Row("3D + temporal averaging, same voxel", "3d", 0, 77.0),
    "average-near": Row("3D + temporal averaging, voxel and its neighbours", "3d", 1),
    "cube": Row("4D, cube", "cube", None, 75.3),
    "hybrid": Row("4D, hybrid", "hybrid", None, 77.5),
    "crf": Row("4D, hybrid + TS-CRF", "crf", None, 78.3),
    "crf-fixed": Row("4D, hybrid + TS-CRF, network fixed", "crf-fixed"),
}


def network(method: str, widths: tuple[int, ...] = WIDTHS) -> nn.Module:
    """The untrained network of a method, features `[N, 6]` to scores `[N, 12]`."""
    options = METHODS[method]
    common: dict[str, Any] = {
        "depth": 14,
        "dim": options.dim,
        "channels": widths,
        "stride": (2, 2, 2, 1)[: options.dim],  # time stays at full rate, as published
        "kernel": options.kernel,
    }
    if options.crf is None:
        return MinkUNet(CHANNELS, len(CLASSES), **common)
    return MinkUNetCRF(CHANNELS, len(CLASSES), **common, **options.crf)


def scores(method: str, net: Callable[[SparseTensor], SparseTensor], batch: Batch) -> Tensor:
    """`[M, 12] float32`: the class scores of all sites of a batch; in 3D of every frame alone."""
    x = batch.in_space if METHODS[method].dim == 3 else batch.in_time
    return net(x).features.float()


def averaged(
    probabilities: Tensor, x: SparseTensor, radius: int, where: Tensor | None = None
) -> Tensor:
    """Temporal averaging: of each site's class probabilities with those of the older frames.

    Of every older frame of the window that has sites within `radius` voxels of the site (a cube), their
    mean counts as one vote; the site itself is one vote too.

    Args:
        probabilities: `[M, C]`.
        x: the 4D tensor of the `[M]` sites, registered, time last.
        radius: in voxels; 0: the same voxel only.
        where: `[M] bool`, the sites whose average is wanted; by default all.
    """
    coords, own = x.coords, probabilities
    span = int(coords[:, 4].amax() - coords[:, 4].amin()) if len(coords) else 0
    if where is not None:
        coords, own = coords[where], probabilities[where]
    near = list(itertools.product(range(-radius, radius + 1), repeat=3))
    total, votes = own.clone(), torch.ones_like(own[:, :1])
    for back in range(1, span + 1):
        offsets = coords.new_tensor([(0, *cell, -back) for cell in near])
        around = (coords[:, None] + offsets).reshape(-1, 5)
        rows = x.sites.rows_of(around).long().reshape(len(coords), len(near))
        there = (rows >= 0).to(probabilities.dtype)
        share = there / there.sum(1, keepdim=True).clamp(min=1.0)
        for tap in range(len(near)):
            total += share[:, tap, None] * probabilities[rows[:, tap].clamp(min=0)]
        votes += there.amax(1, keepdim=True)
    return total / votes
