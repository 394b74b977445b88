"""Kernel shapes: which displacements a kernel's taps have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

__all__ = ["MAX_STRIDE", "kernel_offsets", "per_axis"]

KERNELS = ("cube", "cross", "hybrid", "causal")


MAX_STRIDE = 2**31 - 1  # a site times it fits 64 bits


def per_axis(
    value: int | Sequence[int], dim: int, name: str, minimum: int = 1, maximum: int | None = None
) -> tuple[int, ...]:
    """One integer an axis.

    >>> per_axis(3, 2, "kernel_size")
    (3, 3)
    """
    if isinstance(value, Tensor):
        value = value.tolist()
    entries = [value] if isinstance(value, int) else value
    if not isinstance(entries, Sequence) or not all(isinstance(v, Integral) for v in entries):
        raise TypeError(f"{name} is {value!r}; give an integer, or one for each axis")
    values = (int(value),) * dim if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) != dim:
        raise ValueError(
            f"{name} has {len(values)} entries; give one number or one for each of {dim} axes"
        )
    if any(v < minimum for v in values):
        raise ValueError(f"{name} is {values}; every entry must be at least {minimum}")
    if maximum is not None and any(v > maximum for v in values):
        raise ValueError(f"{name} is {values}; no entry may be above {maximum}")
    return values


def kernel_offsets(
    kernel: str | Tensor,
    kernel_size: int | Sequence[int],
    *,
    dim: int,
    dilation: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = "same",
) -> Tensor:
    """The displacement of every tap in input sites, ``[K, D] int32``.

    Along an axis of size ``k`` the displacements are ``dilation * i - p`` for ``i = 0 .. k - 1``,
    with ``p = floor(dilation * (k - 1) / 2)`` for ``padding="same"`` and ``p = padding`` otherwise.
    Taps are in lexicographic order, the last axis fastest.

    Args:
        kernel: ``"cube"`` (all taps), ``"cross"`` (taps that differ from the centre on one axis at
            most), ``"hybrid"`` (cube over all axes but the last, cross on the last: Choy et al.,
            *4D Spatio-Temporal ConvNets*, CVPR 2019, section 4.2), ``"causal"`` (hybrid without the
            taps ahead on the last axis) or an integer tensor ``[K, D]``
            of displacements, which keep their order and are multiplied by the dilation.
        kernel_size: taps along each axis; not used by a tensor ``kernel``.

    >>> kernel_offsets("cube", 2, dim=1).tolist(), kernel_offsets("cross", 3, dim=2).tolist()
    ([[0], [1]], [[-1, 0], [0, -1], [0, 0], [0, 1], [1, 0]])
    >>> len(kernel_offsets("hybrid", 3, dim=4)), len(kernel_offsets("causal", 3, dim=4))
    (29, 28)
    """
    if not 1 <= dim <= 7:
        raise ValueError(f"dim is {dim}; sparse convolution has 1 to 7 axes")
    steps = per_axis(dilation, dim, "dilation")
    pads = None
    if isinstance(padding, str):
        if padding != "same":
            raise ValueError(f'padding is {padding!r}; give "same" or integers')
    else:
        pads = per_axis(padding, dim, "padding", minimum=-(2**31))
    if isinstance(kernel, Tensor):
        if kernel.ndim != 2 or kernel.shape[1] != dim or kernel.shape[0] == 0:
            raise ValueError(
                f"kernel has shape {tuple(kernel.shape)}; offsets must be [K >= 1, {dim}]"
            )
        if kernel.is_floating_point() or kernel.is_complex() or kernel.dtype == torch.bool:
            raise TypeError(f"kernel has dtype {kernel.dtype}; offsets must be integers")
        shift = pads or (0,) * dim
        taps = [
            [step * place - pad for step, place, pad in zip(steps, row, shift, strict=True)]
            for row in kernel.tolist()
        ]
        return _as_int32(taps, dim)
    if kernel not in KERNELS:
        raise ValueError(
            f"kernel is {kernel!r}; give one of {KERNELS} or a tensor of offsets [K, {dim}]"
        )
    sizes = per_axis(kernel_size, dim, "kernel_size")
    if pads is None:
        pads = tuple(step * (size - 1) // 2 for step, size in zip(steps, sizes, strict=True))
    centre = tuple((size - 1) // 2 for size in sizes)
    taps = []
    for tap in itertools.product(*(range(size) for size in sizes)):
        moved = [axis for axis in range(dim) if tap[axis] != centre[axis]]
        if kernel == "cross" and len(moved) > 1:
            continue
        if kernel in ("hybrid", "causal") and dim - 1 in moved and len(moved) > 1:
            continue
        if kernel == "causal" and tap[-1] > centre[-1]:
            continue
        taps.append([step * i - pad for step, i, pad in zip(steps, tap, pads, strict=True)])
    return _as_int32(taps, dim)


def _as_int32(taps: list[list[int]], dim: int) -> Tensor:
    for tap in taps:
        if any(not -(2**31) <= step < 2**31 for step in tap):
            raise ValueError(
                f"the displacement {tuple(tap)} is outside int32; use a smaller dilation or offset"
            )
    return torch.tensor(taps, dtype=torch.int32).reshape(-1, dim)
