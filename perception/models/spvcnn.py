"""SPVCNN: a MinkUNet with a branch that keeps points, which voxels blur.

Source: Tang, Liu, Zhao, Lin, Lin, Wang, Han, "Searching Efficient 3D Architectures with Sparse
Point-Voxel Convolution" (ECCV 2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn

from perception.models.minkunet import Block, Kernel, MinkUNet
from perception.nn import BatchNorm, Dropout
from perception.sparse import SparseTensor, devoxelize
from perception.sparse.ops import group_by, segment_sum


class PointTransform(nn.Module):
    """Linear, batch normalization and ReLU on features of points ``[N, C] -> [N, C']``."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, channels)
        self.norm = BatchNorm(channels)

    def forward(self, z: Tensor) -> Tensor:
        return self.norm.normalize(self.linear(z), None, True)


class SPVCNN(MinkUNet):
    """MinkUNet42 and a point branch that meet four times.

    After the stem, after the encoder, in the middle of the decoder and at its end, the points take
    the voxels' features by trilinear interpolation, plus (from the second time on) a linear layer
    with norm and ReLU of what they had. The first three times the voxels go on with the mean over
    their points. The last layer scores points.

    Without ``positions`` every site is a point at its centre, as in the published training, which
    voxelizes first; then the first exchange changes nothing. With them every point of the cloud
    keeps a feature of its own, and points of one voxel may get different classes. Points have
    no input beside the stem's features at their place: features of points enter through the sites.

    Args:
        in_channels: features of a site.
        num_classes: scores of a site or point.
        dim, channels, width, stride, kernel, block: as `MinkUNet`, whose layers of depth 42 these
            are, by the same names; at least two stages. 21.8 M parameters at full width.
        dropout: share of the voxels' features that is cut after the second and third meeting.
        needs_points: trained on the points of the cloud: whoever has them should give them.

    Shapes: `SparseTensor` with features `[N, in_channels]` to one on the same sites with
    `[N, num_classes]`; given P points, `[P, num_classes]`.

    Raises:
        ValueError: fewer than two stages; as `MinkUNet`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dim: int = 3,
        channels: Sequence[int] | None = None,
        width: float = 1.0,
        stride: int | Sequence[int] = 2,
        kernel: Kernel = "cube",
        block: Block = "residual",
        dropout: float = 0.3,
        needs_points: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            num_classes,
            depth=42,
            dim=dim,
            channels=channels,
            width=width,
            stride=stride,
            kernel=kernel,
            block=block,
        )
        widths = self.args["channels"]
        stages = len(widths) // 2
        if stages < 2:
            raise ValueError(
                f"SPVCNN: {stages} stage has no middle of the decoder; give two or more"
            )
        self.needs_points = needs_points
        self._middle = stages // 2
        meetings = [widths[0], widths[stages], widths[stages + self._middle], widths[-1]]
        self.points = nn.ModuleList(PointTransform(a, b) for a, b in itertools.pairwise(meetings))
        self.dropout = Dropout(dropout)
        del self.args["depth"]
        self.args.update(dropout=dropout, needs_points=needs_points)

    @overload
    def forward(self, x: SparseTensor) -> SparseTensor: ...
    @overload
    def forward(self, x: SparseTensor, positions: Tensor, rows: Tensor) -> Tensor: ...
    def forward(
        self, x: SparseTensor, positions: Tensor | None = None, rows: Tensor | None = None
    ) -> SparseTensor | Tensor:
        """Class scores of the sites of `x`, or of points.

        Args:
            x: features `[N, in_channels]`.
            positions: `[P, D]` float32 or float64, points in voxels of `x`:
                `(p - origin) / voxel_size`, the time in steps. A site's centre is `site + 0.5`.
            rows: `[P] int64`, the row of the site in which each point lies.
        """
        alone = positions is None or rows is None
        branch = _Sites(x) if positions is None or rows is None else _Cloud(x, positions, rows)
        first = self.stem(x)
        z = branch.to_points(first)
        skips = [first]
        y = branch.to_voxels(z, first)
        for stage, down in enumerate(self.encoder):
            if stage > 0:
                skips.append(y)
            y = down(y)
        z = branch.to_points(y) + self.points[0](z)
        y = self.dropout(branch.to_voxels(z, y))
        for stage, up in enumerate(self.decoder, 1):
            y = up(y, skips.pop())
            if stage == self._middle:
                z = branch.to_points(y) + self.points[1](z)
                y = self.dropout(branch.to_voxels(z, y))
        z = branch.to_points(y) + self.points[2](z)
        scores = nn.functional.linear(z, self.head.weight, self.head.bias)
        return x.replace(scores) if alone else scores


class _Cloud:
    """Points among the voxels of a tensor: how features go from one to the other."""

    def __init__(self, x: SparseTensor, positions: Tensor, rows: Tensor) -> None:
        if positions.shape != (rows.shape[0], x.dim):
            raise ValueError(
                f"SPVCNN: positions has shape {tuple(positions.shape)}; give [{rows.shape[0]}, {x.dim}], "
                "a row for each of rows"
            )
        self.base = x.stride
        self.site = x.coords[rows]
        self.batch = self.site[:, 0].long()
        self.positions = positions
        self.size = [1 / step for step in x.stride]  # a voxel of x is the unit of positions
        self._members: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def to_points(self, y: SparseTensor) -> Tensor:
        """Features at the points, interpolated linearly along each axis between voxels' centres."""
        return devoxelize(y, self.positions, self.size, batch=self.batch, mode="trilinear")

    def to_voxels(self, z: Tensor, y: SparseTensor) -> SparseTensor:
        """The mean over the points of each voxel of ``y``."""
        if y.stride not in self._members:
            with torch.no_grad():
                step = [a // b for a, b in zip(y.stride, self.base, strict=True)]
                divisor = self.site.new_tensor([1, *step])
                coarse = torch.div(self.site, divisor, rounding_mode="floor")
                self._members[y.stride] = group_by(y.sites.rows_of(coarse), y.num_sites)
        return y.replace(segment_sum(z, *self._members[y.stride], mean=True))


class _Sites(_Cloud):
    """One point at the centre of each site: interpolation and mean change nothing there."""

    def __init__(self, x: SparseTensor) -> None:
        rows = torch.arange(x.num_sites, device=x.device)
        super().__init__(x, x.coords[:, 1:].double() + 0.5, rows)
        self.own = x.sites

    def to_points(self, y: SparseTensor) -> Tensor:
        return y.features if y.sites is self.own else super().to_points(y)

    def to_voxels(self, z: Tensor, y: SparseTensor) -> SparseTensor:
        return y.replace(z) if y.sites is self.own else super().to_voxels(z, y)
