"""`SparseTensor`: features at sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from perception.sparse.offsets import per_axis
from perception.sparse.sites import Sites

__all__ = ["SparseTensor"]


class SparseTensor:
    """Features at a set of integer sites; everywhere else there is nothing.

    A site is ``(batch, x, y, z[, t, ...])``. Sites are stored divided by the stride: the centre of
    a voxel in metres is ``(site[1:] + 0.5) * stride * voxel_size + origin``.

    Args:
        features: ``[N, C]``, any floating dtype.
        coords: ``[N, 1 + D] int32`` with D = 1 .. 7, unique rows, batch first; or the `Sites` of
            another tensor.
        stride: base voxels a step, one number or one an axis.
        batch_size: samples; by default the largest batch number and one more.

    Raises:
        TypeError: coords is not int32 or features is not floating.
        ValueError: shapes or devices do not agree, or a site repeats (the first is named).

    >>> import torch, perception
    >>> x = perception.SparseTensor(torch.ones(2, 4), torch.tensor([[0, 1, 2, 3], [0, 5, 5, 5]]).int())
    >>> x
    SparseTensor(2 sites, 4 channels, 3D, stride (1, 1, 1), batch 1, torch.float32, cpu)
    """

    __slots__ = ("ancestors", "features", "sites")

    features: Tensor
    sites: Sites
    #: The finer sites that this tensor's were strided from, the last first: an upsampling that is
    #: not told where to go goes back to them.
    ancestors: tuple[Sites, ...]

    def __init__(
        self,
        features: Tensor,
        coords: Tensor | Sites,
        *,
        stride: int | Sequence[int] = 1,
        batch_size: int | None = None,
    ):
        if not isinstance(features, Tensor):
            raise TypeError(
                f"features is a {type(features).__name__}; features are a tensor [N, C]"
            )
        if features.ndim != 2:
            raise ValueError(f"features has shape {tuple(features.shape)}; features are [N, C]")
        if not features.is_floating_point():
            raise TypeError(
                f"features has dtype {features.dtype}; features are floating: use features.float()"
            )
        if isinstance(coords, Sites):
            sites = coords
        else:
            if not isinstance(coords, Tensor):
                raise TypeError(
                    f"coords is a {type(coords).__name__}; sites are an int32 tensor [N, 1 + D]"
                )
            if coords.device != features.device:
                raise ValueError(f"features is on {features.device} and coords on {coords.device}")
            if coords.shape[:1] != features.shape[:1]:
                raise ValueError(f"features has {features.shape[0]} rows and coords {len(coords)}")
            dim = coords.shape[1] - 1 if coords.ndim == 2 else 0
            sites = Sites.checked(coords, per_axis(stride, dim, "stride"), batch_size)
        if sites.num_sites != features.shape[0]:
            raise ValueError(f"features has {features.shape[0]} rows for {sites.num_sites} sites")
        self.features = features
        self.sites = sites
        self.ancestors = ()

    @staticmethod
    def _make(features: Tensor, sites: Sites, ancestors: tuple[Sites, ...]) -> SparseTensor:
        # Every layer comes through here: no checks of what layers make themselves.
        if features.shape[0] != sites.num_sites:
            raise ValueError(f"features has {features.shape[0]} rows for {sites.num_sites} sites")
        x = object.__new__(SparseTensor)
        x.features, x.sites, x.ancestors = features, sites, ancestors
        return x

    # -- what it is --------------------------------------------------------------------------------

    @property
    def coords(self) -> Tensor:
        """The sites, ``[N, 1 + D] int32``."""
        return self.sites.coords

    @property
    def stride(self) -> tuple[int, ...]:
        """Base voxels a step, along each axis."""
        return self.sites.stride

    @property
    def dim(self) -> int:
        """Axes without the batch."""
        return self.sites.dim

    @property
    def batch_size(self) -> int:
        return self.sites.batch_size

    @property
    def num_sites(self) -> int:
        return self.sites.num_sites

    @property
    def num_channels(self) -> int:
        return self.features.shape[1]

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    @property
    def requires_grad(self) -> bool:
        return self.features.requires_grad

    def __len__(self) -> int:
        return self.num_sites

    def __repr__(self) -> str:
        return (
            f"SparseTensor({self.num_sites} sites, {self.num_channels} channels, {self.dim}D, "
            f"stride {self.stride}, batch {self.batch_size}, {self.dtype}, {self.device})"
        )

    # -- the same sites ----------------------------------------------------------------------------

    def replace(self, features: Tensor) -> SparseTensor:
        """Other features ``[N, C']`` at the same sites, which keep their plans."""
        if (
            not isinstance(features, Tensor)
            or features.ndim != 2
            or not features.is_floating_point()
        ):
            return SparseTensor(features, self.sites)  # which says what is wrong
        return SparseTensor._make(features, self.sites, self.ancestors)

    def to(self, *args: Any, **kwargs: Any) -> SparseTensor:
        """As ``torch.Tensor.to``: a dtype for the features, a device for features and sites."""
        features = self.features.to(*args, **kwargs)
        sites = self.sites.to(features.device)
        ancestors = tuple(finer.to(features.device) for finer in self.ancestors)
        return SparseTensor._make(features, sites, ancestors)

    def detach(self) -> SparseTensor:
        return self.replace(self.features.detach())

    def pin_memory(self) -> SparseTensor:
        sites = Sites(
            self.coords.pin_memory(), self.stride, self.batch_size, is_sorted=self.sites._is_sorted
        )
        return SparseTensor(self.features.pin_memory(), sites)

    def _combine(
        self, other: SparseTensor | float, op: Callable[[Tensor, Any], Tensor]
    ) -> SparseTensor:
        if isinstance(other, SparseTensor):
            if other.num_channels != self.num_channels:
                raise ValueError(
                    f"the tensors have {self.num_channels} and {other.num_channels} channels; "
                    f"both must be the same"
                )
            return self.replace(op(self.features, aligned(other, self.sites)))
        return self.replace(op(self.features, other))

    def __add__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combine(other, torch.add)

    def __sub__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combine(other, torch.sub)

    def __mul__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combine(other, torch.mul)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> SparseTensor:
        return self.replace(-self.features)

    # -- other sites -------------------------------------------------------------------------------

    def prune(self, mask: Tensor) -> SparseTensor:
        """The sites where ``mask [N] bool`` is true, in their order.

        Raises:
            TypeError: the mask is not bool.
            ValueError: it does not have one entry a site.
        """
        if mask.dtype != torch.bool:
            raise TypeError(f"mask has dtype {mask.dtype}; prune takes a bool mask")
        if mask.shape != (self.num_sites,):
            raise ValueError(f"mask has shape {tuple(mask.shape)} for {self.num_sites} sites")
        sorted_ = True if self.sites._is_sorted else None
        sites = Sites(self.coords[mask], self.stride, self.batch_size, is_sorted=sorted_)
        return SparseTensor(self.features[mask], sites)

    def decompose(self) -> list[SparseTensor]:
        """One tensor a sample, each with batch number 0, rows in their order."""
        order, ptr = self.sites.by_sample()
        sorted_ = True if self.sites._is_sorted else None
        out = []
        for begin, end in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
            rows = order[begin:end].long()
            coords = self.coords[rows].clone()
            coords[:, 0] = 0
            out.append(
                SparseTensor(self.features[rows], Sites(coords, self.stride, 1, is_sorted=sorted_))
            )
        return out

    # -- dense -------------------------------------------------------------------------------------

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest site along each axis, two ``[D] int32``, both inclusive.

        An empty tensor has the minimum 0 and the maximum -1.
        """
        if self.num_sites == 0:
            zero = self.coords.new_zeros(self.dim)
            return zero, zero - 1
        low, high = torch.aminmax(self.coords[:, 1:], dim=0)
        return low, high

    def dense(
        self, min_coords: Sequence[int] | Tensor | None = None, shape: Sequence[int] | None = None
    ) -> Tensor:
        """``[B, C, *shape]`` with the site ``min_coords`` at index 0 and zeros where nothing is.

        Args:
            min_coords: by default the smallest site, ``bounds()[0]``.
            shape: by default up to the largest site. Sites outside are left out.
        """
        low, high = self.bounds()
        if min_coords is not None:
            low = torch.as_tensor(min_coords, dtype=torch.int32, device=self.device)
        if low.shape != (self.dim,):
            raise ValueError(
                f"min_coords has shape {tuple(low.shape)}; give one number for each of {self.dim} axes"
            )
        if shape is None:
            shape = (high.long() - low.long() + 1).clamp(min=0).tolist()
        shape = per_axis(shape, self.dim, "shape", minimum=0)
        place = self.coords[:, 1:].long() - low.long()
        size = torch.tensor(shape, device=self.device)
        inside = ((place >= 0) & (place < size)).all(1)
        index = self.coords[:, 0].long()
        for axis, length in enumerate(shape):
            index = index * length + place[:, axis]
        cells = self.batch_size
        for length in shape:
            cells *= length
        if cells * max(self.num_channels, 1) >= 2**40:
            raise ValueError(
                f"a dense tensor of shape {(self.batch_size, self.num_channels, *shape)} is too large; "
                f"give min_coords and shape of a part"
            )
        out = self.features.new_zeros(cells, self.num_channels)
        out = out.index_copy(0, index[inside], self.features[inside])
        return out.reshape(self.batch_size, *shape, self.num_channels).movedim(-1, 1)

    @staticmethod
    def from_dense(dense: Tensor, min_coords: Sequence[int] | Tensor | None = None) -> SparseTensor:
        """Sites where any channel of ``dense [B, C, *shape]`` is not zero, in lexicographic order.

        Args:
            min_coords: the site of index 0, by default 0.
        """
        if not 3 <= dense.ndim <= 9:
            raise ValueError(
                f"dense has shape {tuple(dense.shape)}; give [B, C, *shape] with 1 to 7 axes"
            )
        place = (dense.detach() != 0).any(1).nonzero()
        features = dense.movedim(1, -1)[tuple(place.T)]
        dim = dense.ndim - 2
        if min_coords is not None:
            low = torch.as_tensor(min_coords, dtype=torch.int64, device=dense.device)
            if low.shape != (dim,):
                raise ValueError(
                    f"min_coords has shape {tuple(low.shape)}; give one number for each of {dim} axes"
                )
            place = torch.cat([place[:, :1], place[:, 1:] + low], 1)
            if len(place) and (place.amax() >= 2**31 or place.amin() < -(2**31)):
                raise ValueError("min_coords moves sites outside int32")
        sites = Sites(place.int(), (1,) * dim, max(dense.shape[0], 1), is_sorted=True)
        return SparseTensor(features, sites)

    @staticmethod
    def from_points(
        points: Tensor,
        features: Tensor,
        voxel_size: float | Sequence[float],
        *,
        batch: Tensor | None = None,
        reduce: str = "mean",
        origin: float | Sequence[float] | None = None,
    ) -> SparseTensor:
        """Voxelizes points; see `perception.voxelize`.

        Args:
            points: ``[N, D]`` in metres (the fourth axis in seconds).
            features: ``[N, C]``, reduced over the points of a voxel.
            batch: ``[N]`` sample numbers, by default 0.
            origin: the corner of site 0, by default 0.
        """
        from perception.sparse.voxelize import voxelize

        voxels = voxelize(
            points,
            voxel_size,
            features=features,
            batch=batch,
            reduce=reduce,
            origin=0 if origin is None else origin,
        )
        size = max(int(voxels.coords[:, 0].max()) + 1, 1) if len(voxels.coords) else 1
        if batch is not None and len(batch):
            size = max(size, int(batch.max()) + 1)
        sites = Sites(voxels.coords, (1,) * points.shape[1], size, is_sorted=True)
        return SparseTensor(voxels.features, sites)


def aligned(x: SparseTensor, sites: Sites) -> Tensor:
    """The features of ``x`` in the row order of ``sites``.

    Raises:
        ValueError: the sets of sites differ.
    """
    if x.sites.stride != sites.stride:
        raise ValueError(f"the tensors have strides {sites.stride} and {x.sites.stride}")
    if x.sites.same_as(sites):
        return x.features
    if x.sites.dim == sites.dim and x.num_sites == sites.num_sites:
        rows = x.sites.rows_of(sites.coords).long()
        if bool((rows >= 0).all()):
            return x.features[rows]
    raise ValueError(
        f"the tensors have different sites ({sites.num_sites} and {x.num_sites} of them); "
        f"join them with perception.union"
    )
