"""Sets of sites: where a sparse tensor has features, and the plans built on them."""

from __future__ import annotations

import itertools
import weakref
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from perception._native import check_device
from perception.sparse.kernel_map import (
    FromSites,
    IndexedSites,
    KernelMap,
    TableMap,
    kernel_map,
    rank_taps,
)
from perception.sparse.ops import (
    build_index,
    group_by,
    lookup,
    reach_sites,
    strided_sites,
    unique_sites,
)

__all__ = ["Sites"]

_serial = itertools.count()


def _plans_outlive_inference_mode() -> AbstractContextManager:
    # A plan made while validating may be used by a training step on the same sites.
    return torch.inference_mode(False)


class Sites:
    """An immutable set of sites ``(batch, x, y, z[, t, ...])`` and everything planned on it.

    Kernel maps, coarser sites and the hash index are built once, when a layer first asks, and are
    found again by value: whoever asks for the same offsets and stride between the same sites gets
    the same plan. Plans live here and die with the sites.

    Attributes:
        coords: ``[N, 1 + D] int32``, unique rows.
        stride: base voxels a step, D integers.
        batch_size: samples, including those without a site.
    """

    def __init__(
        self,
        coords: Tensor,
        stride: tuple[int, ...],
        batch_size: int,
        *,
        is_sorted: bool | None = None,
        index: Tensor | None = None,
    ):
        self.coords = coords
        self.stride = stride
        self.batch_size = batch_size
        self._is_sorted = is_sorted
        self._indexed = IndexedSites(coords, index)
        self._forget()

    def _forget(self) -> None:
        self._serial = next(_serial)
        self._maps: dict[tuple, KernelMap] = {}
        self._derived: dict[tuple, Sites] = {}
        self._by_sample: tuple[Tensor, Tensor] | None = None

    @classmethod
    def checked(cls, coords: Tensor, stride: tuple[int, ...], batch_size: int | None) -> Sites:
        """Sites from the user's coordinates.

        Raises:
            TypeError: the dtype is not int32.
            ValueError: wrong shape, a negative or too large batch number, or duplicate rows (the
                first one is named).
        """
        if coords.dtype != torch.int32:
            raise TypeError(f"coords has dtype {coords.dtype}; sites are int32: use coords.int()")
        if coords.ndim != 2 or not 2 <= coords.shape[1] <= 8:
            raise ValueError(
                f"coords has shape {tuple(coords.shape)}; sites are [N, 1 + D] with the batch first and D = 1..7"
            )
        if coords.shape[0] >= 2**31:
            raise ValueError(
                f"coords has {coords.shape[0]} rows; a tensor holds at most 2^31 - 1 sites"
            )
        check_device(coords.device, "coords")
        coords = coords.detach().contiguous()
        lowest, highest = 0, -1
        if len(coords):
            lowest, highest = (int(v) for v in torch.aminmax(coords[:, 0]))
        if lowest < 0:
            row = int((coords[:, 0] < 0).int().argmax())
            raise ValueError(
                f"coords has batch number {int(coords[row, 0])} in row {row}; samples are numbered from 0"
            )
        if batch_size is None:
            batch_size = max(highest + 1, 1)
        elif highest >= batch_size:
            raise ValueError(f"coords has batch number {highest}, but batch_size is {batch_size}")
        index, info = build_index(coords, even_if_sorted=False)
        duplicates, is_sorted = info.tolist()
        if duplicates:
            _, inverse, order, ptr = unique_sites(coords)
            earlier = order[ptr[:-1]].long()[inverse]
            row = int((earlier != torch.arange(len(coords), device=coords.device)).int().argmax())
            site = tuple(coords[row].tolist())
            raise ValueError(
                f"coords has {duplicates} duplicate sites, first at row {row}: {site}; pass them through "
                f"perception.voxelize or SparseTensor.from_points(reduce=...)"
            )
        return cls(
            coords,
            stride,
            batch_size,
            is_sorted=bool(is_sorted),
            index=index if len(index) else None,
        )

    @property
    def dim(self) -> int:
        return self.coords.shape[1] - 1

    @property
    def num_sites(self) -> int:
        return self.coords.shape[0]

    @property
    def device(self) -> torch.device:
        return self.coords.device

    @property
    def is_sorted(self) -> bool:
        """Whether the rows are in lexicographic order."""
        if self._is_sorted is None:
            index, info = build_index(self.coords, even_if_sorted=False)
            self._is_sorted = bool(info[1])
            self._indexed.index = index if len(index) else None
        return self._is_sorted

    @property
    def index(self) -> Tensor:
        if self._indexed.index is None:
            self._indexed.index = build_index(self.coords)[0]
        return self._indexed.index

    def rows_of(self, coords: Tensor) -> Tensor:
        """The row of each site ``[Q, 1 + D] int32`` here, ``[Q] int32``, -1 where it is absent."""
        return lookup(self.index, self.coords, coords)

    def same_as(self, other: Sites) -> bool:
        """Whether both are the same sites in the same order."""
        if self is other:
            return True
        return self.coords.shape == other.coords.shape and torch.equal(self.coords, other.coords)

    def by_sample(self) -> tuple[Tensor, Tensor]:
        """Rows sorted by sample and where each sample begins: ``order [N] int32, ptr [B + 1] int64``."""
        if self._by_sample is None:
            with _plans_outlive_inference_mode():
                self._by_sample = group_by(self.coords[:, 0].contiguous(), self.batch_size)
        return self._by_sample

    # -- sites made from these ---------------------------------------------------------------------

    def _derive(self, key: tuple, coords: Tensor, stride: tuple[int, ...]) -> Sites:
        sites = Sites(coords, stride, self.batch_size, is_sorted=True)
        self._derived[key] = sites
        return sites

    def strided(self, stride: tuple[int, ...]) -> Sites:
        """The sites ``unique(floor(site / stride))``, in lexicographic order; these for stride 1."""
        if all(step == 1 for step in stride):
            return self
        key = ("stride", stride)
        if key in self._derived:
            return self._derived[key]
        with _plans_outlive_inference_mode():
            coords = strided_sites(self.coords, stride)
        return self._derive(key, coords, coarser(self.stride, stride))

    def reached(
        self,
        offsets: Tensor,
        stride: tuple[int, ...],
        key: tuple,
        transposed: bool,
        bounds: tuple[int, ...] = (),
    ) -> Sites:
        """The outputs of a convolution, or of a transposed one, that keeps every site some tap
        reaches; arguments as for `map_to` and `reach_sites`.

        Raises:
            ValueError: a site is reached outside int32, or the stride cannot be made finer.
        """
        place = ("reach", key, stride, transposed, bounds)
        if place in self._derived:
            return self._derived[place]
        after = finer if transposed else coarser
        coords = _reach(self.coords, offsets, stride, transposed, bounds)
        return self._derive(place, coords, after(self.stride, stride))

    # -- plans -------------------------------------------------------------------------------------

    def _relation(self, other: Sites) -> tuple:
        if other is self:
            return ("same",)
        for key, sites in self._derived.items():
            if sites is other:
                return key
        key = ("other", other._serial)
        if not any(known[0] == key for known in self._maps):
            weakref.finalize(other, _drop, weakref.ref(self), key)
        return key

    def map_to(
        self, out: Sites, offsets: Tensor, stride: tuple[int, ...], key: tuple, symmetric: bool
    ) -> KernelMap:
        """The plan of a convolution from these sites to ``out``.

        Args:
            offsets: ``[K, D] int32`` on the sites' device; ``key`` is the same as a tuple.
            symmetric: tap K-1-k is opposite to tap k.
        """
        relation = self._relation(out)
        found = self._maps.get((relation, key, stride))
        if found is not None:
            return found
        self._check_pair(out)
        symmetric = symmetric and out is self and all(step == 1 for step in stride)
        plan: KernelMap
        if self.device.type == "cuda":
            source = FromSites(self._indexed, out.coords, offsets, stride)
            plan = TableMap(rank_taps(key), symmetric, source)
        else:
            with _plans_outlive_inference_mode():
                in_order = self.is_sorted and out.is_sorted
                index = None if in_order else self.index
                mirrored = symmetric and in_order
                pairs = kernel_map(index, self.coords, out.coords, offsets, stride, mirrored)
                plan = KernelMap(pairs, monotone=in_order)
        self._maps[relation, key, stride] = plan
        return plan

    def identity(self) -> KernelMap:
        """The plan of a convolution with one tap, at the site itself."""
        key = (("same",), "identity", ())
        if key not in self._maps:
            with _plans_outlive_inference_mode():
                rows = torch.arange(self.num_sites, dtype=torch.int32, device=self.device)
                pairs = rows, rows, torch.tensor([0, self.num_sites], device=self.device)
                self._maps[key] = KernelMap(pairs, True, pairs)
        return self._maps[key]

    def _check_pair(self, other: Sites) -> None:
        if other.dim != self.dim:
            raise ValueError(f"sites with {self.dim} axes meet sites with {other.dim}")
        if other.device != self.device:
            raise ValueError(
                f"sites on {self.device} meet sites on {other.device}; move one with .to(...)"
            )

    # -- copies ------------------------------------------------------------------------------------

    def to(self, device: torch.device | str) -> Sites:
        """The same sites on another device; plans are built anew there."""
        if torch.device(device) == self.device:
            return self
        return Sites(
            self.coords.to(device), self.stride, self.batch_size, is_sorted=self._is_sorted
        )

    def __getstate__(self) -> dict[str, Any]:
        return {
            "coords": self.coords,
            "stride": self.stride,
            "batch_size": self.batch_size,
            "_is_sorted": self._is_sorted,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._indexed = IndexedSites(self.coords)
        self._forget()


def _reach(
    coords: Tensor,
    offsets: Tensor,
    stride: tuple[int, ...],
    transposed: bool,
    bounds: tuple[int, ...],
) -> Tensor:
    try:
        with _plans_outlive_inference_mode():
            return reach_sites(coords, offsets, stride, transposed, bounds)
    except RuntimeError as error:
        if "outside int32" in str(error):
            raise ValueError(
                "a tap reaches a site outside int32; shift the coordinates or give bounds"
            ) from None
        raise


def _drop(holder: weakref.ref, key: tuple) -> None:
    sites = holder()
    if sites is not None:
        for known in [known for known in sites._maps if known[0] == key]:
            del sites._maps[known]


def coarser(stride: tuple[int, ...], by: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a * b for a, b in zip(stride, by, strict=True))


def finer(stride: tuple[int, ...], by: tuple[int, ...]) -> tuple[int, ...]:
    """The stride after upsampling; a step of one base voxel stays one: it becomes the new base.

    Raises:
        ValueError: the stride is not a multiple of ``by``.
    """
    if any(a > 1 and a % b for a, b in zip(stride, by, strict=True)):
        raise ValueError(
            f"sites of stride {stride} cannot be made finer by {by}; the stride must be a multiple of it"
        )
    return tuple(max(a // b, 1) for a, b in zip(stride, by, strict=True))
