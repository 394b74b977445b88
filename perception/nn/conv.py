"""Convolution layers on sparse tensors, in 1 to 7 dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.sparse.conv import conv
from perception.sparse.kernel_map import KernelMap
from perception.sparse.offsets import MAX_STRIDE, kernel_offsets, per_axis
from perception.sparse.sites import Sites, coarser, finer
from perception.sparse.tensor import SparseTensor

__all__ = ["Conv", "ConvTranspose", "GenerativeConvTranspose"]

Bounds = tuple[Sequence[int], Sequence[int]]
Plan = tuple[KernelMap, Sites, tuple[Sites, ...]]


def check_input(layer: nn.Module, x: object) -> None:
    """Raises TypeError where a layer is given anything but a sparse tensor."""
    if not isinstance(x, SparseTensor):
        raise TypeError(
            f"{type(layer).__name__} takes a SparseTensor and was given a {type(x).__name__}; "
            f"make one with perception.SparseTensor(features, coords)"
        )


def made_from(x: SparseTensor, features: Tensor, out: Sites) -> SparseTensor:
    """The result of striding ``x`` to coarser sites, which remembers the way back."""
    ancestors = x.ancestors if out is x.sites else (x.sites, *x.ancestors)
    return SparseTensor._make(features, out, ancestors)


class SparseKernel(nn.Module):
    """Taps, stride and how plans for them are found: what convolutions and pooling share.

    Attributes:
        offsets: buffer ``[K, D] int32``, the displacement of each tap in input sites.
    """

    offsets: Tensor

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        dilation: int | Sequence[int],
        dim: int,
        kernel: str | Tensor,
        padding: str | int | Sequence[int],
    ):
        super().__init__()
        offsets = kernel_offsets(kernel, kernel_size, dim=dim, dilation=dilation, padding=padding)
        self.register_buffer("offsets", offsets, persistent=False)
        self.dim = dim
        self.stride = per_axis(stride, dim, "stride", maximum=MAX_STRIDE)
        self.kernel_size = (
            per_axis(kernel_size, dim, "kernel_size") if isinstance(kernel, str) else None
        )
        self.kernel_name = kernel if isinstance(kernel, str) else "custom"
        self._key = tuple(tuple(row) for row in offsets.tolist())
        self._symmetric = bool(torch.equal(offsets.long(), -offsets.long().flip(0)))

    @property
    def num_taps(self) -> int:
        return len(self._key)

    def _check(self, x: SparseTensor) -> None:
        check_input(self, x)
        if x.dim != self.dim:
            raise ValueError(
                f"{type(self).__name__} has dim={self.dim} and the tensor {x.dim} axes"
            )

    def _reached(self, x: SparseTensor, *, transposed: bool, bounds: Bounds | None) -> Sites:
        flat = self._flat_bounds(bounds)
        return x.sites.reached(self.offsets, self.stride, self._key, transposed, flat)

    def _flat_bounds(self, bounds: Bounds | None) -> tuple[int, ...]:
        if bounds is None:
            return ()
        low = per_axis(bounds[0], self.dim, "bounds minimum", minimum=-(2**31))
        high = per_axis(bounds[1], self.dim, "bounds maximum", minimum=-(2**31))
        if any(a > b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"bounds have the minimum {low} above the maximum {high}")
        return low + high

    def _explicit(
        self, sites: SparseTensor | Tensor, x: SparseTensor, stride: tuple[int, ...]
    ) -> Sites:
        if isinstance(sites, SparseTensor):
            return sites.sites
        if sites.device != x.device:
            raise ValueError(
                f"sites is on {sites.device} and the tensor on {x.device}; move one with .to(...)"
            )
        size = x.batch_size
        if len(sites):
            size = max(size, int(sites[:, 0].max()) + 1)
        return Sites.checked(sites, stride, size)

    def _upsampled(
        self, x: SparseTensor, like: SparseTensor | None
    ) -> tuple[Sites, tuple[Sites, ...]]:
        """Where an upsampling without explicit sites goes, and the ancestors of those sites."""
        if like is not None:
            check_input(self, like)
            return like.sites, like.ancestors
        if all(step == 1 for step in self.stride):
            return x.sites, x.ancestors
        for i, sites in enumerate(x.ancestors):
            if coarser(sites.stride, self.stride) == x.stride:
                return sites, x.ancestors[i + 1 :]
        raise ValueError(
            f"{type(self).__name__} does not know the finer sites: this tensor of stride {x.stride} "
            f"was not strided by {self.stride} from another; name them with like=..., or use "
            f"GenerativeConvTranspose"
        )

    def extra_repr(self) -> str:
        size = f"kernel_size={self.kernel_size}, " if self.kernel_size else ""
        return f"{size}stride={self.stride}, dim={self.dim}, kernel={self.kernel_name!r} ({self.num_taps} taps)"


class _Conv(SparseKernel):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        dim: int = 3,
        kernel: str | Tensor = "cube",
        padding: str | int | Sequence[int] = "same",
        sites: str | None = None,
    ):
        super().__init__(kernel_size, stride, dilation, dim, kernel, padding)
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("groups", groups),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be positive")
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}"
            )
        if sites not in (None, "reach"):
            raise ValueError(
                f'sites is {sites!r}; give None or "reach", or sites=... when calling the layer'
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.sites = sites
        self.weight = nn.Parameter(torch.empty(self.num_taps, in_channels // groups, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ``±1 / sqrt(fan_in)``, fan_in = K * Cin / groups, as ``torch.nn.Conv3d``."""
        bound = 1 / math.sqrt(self.num_taps * self.in_channels // self.groups)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        bias = "" if self.bias is not None else ", bias=False"
        reach = f", sites={self.sites!r}" if self.sites else ""
        return (
            f"{self.in_channels}, {self.out_channels}, {super().extra_repr()}{groups}{bias}{reach}"
        )


class Conv(_Conv):
    """Generalized sparse convolution (cross-correlation, as ``torch.nn.Conv3d``).

    ``out[o] = bias + sum over k of weight[k].T @ in[stride * o + offsets[k]]`` over the sites that
    exist (Choy et al., *4D Spatio-Temporal ConvNets*, CVPR 2019, equation 3).

    Output sites: the input's at stride 1, ``unique(floor(site / stride))`` otherwise; every site
    that some tap reaches with ``sites="reach"``; any others by ``conv(x, sites=...)``.

    Args:
        kernel_size, stride, dilation: one integer, or one an axis.
        groups: as in torch; ``groups == in_channels`` is depthwise.
        dim: axes, 1 to 7.
        kernel: ``"cube"``, ``"cross"``, ``"hybrid"`` or displacements ``[K, D]``; see
            `perception.sparse.kernel_offsets`.
        padding: ``"same"`` or integers as in torch; it moves the taps.
        sites: None or ``"reach"``.

    Attributes:
        weight: ``[K, in_channels // groups, out_channels]``, taps in the order of ``offsets``.
        bias: ``[out_channels]`` or None.
        offsets: buffer ``[K, D] int32``.

    >>> import torch, perception
    >>> x = perception.SparseTensor(torch.ones(2, 4), torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]]).int())
    >>> perception.nn.Conv(4, 8, 3)(x)
    SparseTensor(2 sites, 8 channels, 3D, stride (1, 1, 1), batch 1, torch.float32, cpu)
    """

    def forward(
        self,
        x: SparseTensor,
        *,
        sites: SparseTensor | Tensor | None = None,
        bounds: Bounds | None = None,
    ) -> SparseTensor:
        """
        Args:
            sites: exactly these output sites, a tensor's or ``[M, 1 + D] int32``.
            bounds: ``(min, max)`` of the output sites, inclusive; only with ``sites="reach"``.

        Raises:
            ValueError: wrong dimension, channels or device; a site reached outside int32.
            TypeError: the dtypes of features and weight differ outside autocast.
        """
        plan, out, ancestors = self.plan(x, sites=sites, bounds=bounds)
        features = conv(x.features, self.weight, self.bias, plan, out.num_sites, self.groups)
        return SparseTensor._make(features, out, ancestors)

    def plan(
        self,
        x: SparseTensor,
        *,
        sites: SparseTensor | Tensor | None = None,
        bounds: Bounds | None = None,
    ) -> Plan:
        """The kernel map to the output sites, these sites, and those they were strided from;
        arguments and errors as for the call."""
        self._check(x)
        if bounds is not None and (self.sites != "reach" or sites is not None):
            raise ValueError(
                'bounds go with sites="reach" only; other output sites are given already'
            )
        if sites is not None:
            out = self._explicit(sites, x, coarser(x.stride, self.stride))
        elif self.sites == "reach":
            out = self._reached(x, transposed=False, bounds=bounds)
        else:
            out = x.sites.strided(self.stride)
        plan = x.sites.map_to(out, self.offsets, self.stride, self._key, self._symmetric)
        return plan, out, x.ancestors if out is x.sites else (x.sites, *x.ancestors)


class ConvTranspose(_Conv):
    """Transposed convolution: the adjoint of `Conv` when given ``conv.weight.transpose(1, 2)``.

    ``out[stride * i + offsets[k]] += weight[k].T @ in[i]``, plus the bias.

    Output sites: those of ``like`` if given, else those that the input was strided from (the
    input's own at stride 1); ``conv(x, sites=...)`` gives any others. It uses the very plan that the
    strided convolution between the same sites made.

    Arguments and attributes are those of `Conv`.
    """

    def forward(
        self,
        x: SparseTensor,
        *,
        like: SparseTensor | None = None,
        sites: SparseTensor | Tensor | None = None,
        bounds: Bounds | None = None,
    ) -> SparseTensor:
        """
        Args:
            like: a finer tensor whose sites the output gets.
            sites: exactly these output sites, a tensor's or ``[M, 1 + D] int32``.
            bounds: ``(min, max)`` of the output sites, inclusive; only with ``sites="reach"``.

        Raises:
            ValueError: no finer sites are known, or as for `Conv`.
            TypeError: the dtypes of features and weight differ outside autocast.
        """
        plan, out, ancestors = self.plan(x, like=like, sites=sites, bounds=bounds)
        features = conv(x.features, self.weight, self.bias, plan, out.num_sites, self.groups)
        return SparseTensor._make(features, out, ancestors)

    def plan(
        self,
        x: SparseTensor,
        *,
        like: SparseTensor | None = None,
        sites: SparseTensor | Tensor | None = None,
        bounds: Bounds | None = None,
    ) -> Plan:
        """As `Conv.plan`."""
        self._check(x)
        if bounds is not None and (self.sites != "reach" or like is not None or sites is not None):
            raise ValueError(
                'bounds go with sites="reach" only; other output sites are given already'
            )
        if like is not None and sites is not None:
            raise ValueError("like and sites both name the output sites; give one of them")
        ancestors: tuple[Sites, ...] = ()
        if sites is not None:
            out = self._explicit(sites, x, finer(x.stride, self.stride))
        elif like is None and self.sites == "reach":
            out = self._reached(x, transposed=True, bounds=bounds)
        else:
            out, ancestors = self._upsampled(x, like)
        plan = out.map_to(x.sites, self.offsets, self.stride, self._key, self._symmetric)
        return plan.transposed(out.num_sites), out, ancestors


class GenerativeConvTranspose(ConvTranspose):
    """Transposed convolution onto every site that a tap reaches (Gwak, Choy and Savarese,
    *Generative Sparse Detection Networks*, ECCV 2020). Arguments are those of `Conv`."""

    def __init__(self, *args: object, **kwargs: object):
        kwargs["sites"] = "reach"
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
