"""The sparse product: convolution given a kernel map, and its gradients.

The backward of a convolution is a convolution over the transposed map and a weight gradient; the
backwards of both are made of the same two operators, so that every derivative exists.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from perception._native import ops
from perception.sparse.kernel_map import KernelMap, Pairs, transpose_map
from perception.sparse.ops import sum_rows

__all__ = ["conv"]

# The kernels without the autograd layer of the dispatcher, which is Python and takes longer than they.
below_autograd = torch._C._AutoDispatchBelowAutograd


def conv(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_map: KernelMap,
    num_out: int,
    groups: int = 1,
) -> Tensor:
    """``out[o] = bias + sum of weight[k].T @ features[i]`` over the map's pairs (k, i, o).

    Args:
        features: ``[N, Cin]`` float64, float32, bfloat16 or float16 (sums in float32 at least).
        weight: ``[K, Cin // groups, Cout]`` in the same dtype; group g maps its slice of Cin to its
            slice of Cout.
        bias: ``[Cout]`` or None.
        kernel_map: K taps from ``features``' rows to ``num_out`` rows.

    Returns:
        ``[num_out, Cout]``. Under autocast the inputs are cast as for ``torch.nn.Conv3d``.

    Raises:
        TypeError: features, weight and bias differ in dtype.
        ValueError: their widths do not agree.
    """
    dtype, tf32 = product_dtype(features, weight, bias, groups)
    learns = torch.is_grad_enabled() and (
        features.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )
    plan, reverse = kernel_map.lists(features.shape[0], learns)
    compiling = torch.compiler.is_compiling()
    if learns and not compiling:
        return _Conv.apply(features, weight, bias, dtype, plan, reverse, num_out, groups, tf32)
    x, w = as_dtype(features, dtype), as_dtype(weight, dtype)
    b = None if bias is None else as_dtype(bias, dtype)
    if compiling:
        return ops.conv(x, w, b, plan, reverse, num_out, groups, tf32)
    with below_autograd():
        return ops.conv(x, w, b, plan, [], num_out, groups, tf32)


def as_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """``tensor.to(dtype)``, which costs a microsecond or three where there is nothing to do."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def product_dtype(
    features: Tensor, weight: Tensor, bias: Tensor | None, groups: int
) -> tuple[torch.dtype, bool]:
    """In which dtype a product runs, and whether float32 may be rounded to TF32; checks its inputs.

    Raises:
        TypeError, ValueError: as `conv`.
    """
    device = features.device.type
    dtype = features.dtype
    autocast = torch.is_autocast_enabled(device) and dtype != torch.float64
    for other in (weight,) if bias is None else (weight, bias):
        if other.dtype != dtype and not (autocast and other.dtype != torch.float64):
            raise TypeError(
                f"the features are {dtype} and the layer is {other.dtype}; "
                f"convert one of them with .to(...) or run under torch.autocast"
            )
    if autocast:
        dtype = torch.get_autocast_dtype(device)
    if features.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"the layer takes {weight.shape[1] * groups} channels and the features have {features.shape[1]}"
        )
    if 0 in weight.shape[1:]:
        raise ValueError(
            f"the weight has shape {tuple(weight.shape)}; there is no layer without channels"
        )
    tf32 = dtype == torch.float32 and device == "cuda" and torch.backends.cuda.matmul.allow_tf32
    return dtype, tf32


class _Conv(torch.autograd.Function):
    """The operator with its gradient, as ``register_autograd`` gives it below and at a fifth of the
    host time; the casts of autocast are inside, so that they cost no nodes of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        plan: list[Tensor],
        reverse: list[Tensor],
        num_out: int,
        groups: int,
        tf32: bool,
    ) -> Tensor:
        x, w = features.to(dtype), weight.to(dtype)
        ctx.save_for_backward(features, weight, bias)
        ctx.cast = x if x is not features else None, w if w is not weight else None
        ctx.plan, ctx.reverse, ctx.groups, ctx.tf32 = plan, reverse, groups, tf32
        b = None if bias is None else bias.to(dtype)
        with below_autograd():
            return ops.conv(x, w, b, plan[:3], [], num_out, groups, tf32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        features, weight, bias = ctx.saved_tensors
        x, w = ctx.cast
        if x is None or torch.is_grad_enabled():  # a second derivative goes through the casts
            x = features.to(grad.dtype)
        if w is None or torch.is_grad_enabled():
            w = weight.to(grad.dtype)
        below = contextlib.nullcontext if torch.is_grad_enabled() else below_autograd
        with below():
            wide = weight.dtype == torch.float32
            by_x, by_weight, by_bias = product_gradients(
                grad,
                x,
                w,
                bias,
                ctx.plan,
                ctx.reverse,
                ctx.groups,
                ctx.tf32,
                wide,
                ctx.needs_input_grad,
            )
        return (
            None if by_x is None else by_x.to(features.dtype),
            None if by_weight is None else by_weight.to(weight.dtype),
            None if by_bias is None else by_bias.to(bias.dtype),
            *(None,) * 6,
        )


def conv_twin(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pairs: Pairs,
    num_out: int,
    groups: int = 1,
) -> Tensor:
    in_rows, out_rows, ptr = pairs
    out = features.new_zeros(num_out, weight.shape[2])
    if bias is not None:
        out = out + bias
    for k in range(weight.shape[0]):
        tap = slice(int(ptr[k]), int(ptr[k + 1]))
        x = features[in_rows[tap].long()].unflatten(1, (groups, -1))
        w = weight[k].unflatten(1, (groups, -1))
        out = out.index_add(0, out_rows[tap].long(), torch.einsum("ngi,igo->ngo", x, w).flatten(1))
    return out


def conv_weight_grad_twin(x: Tensor, grad: Tensor, pairs: Pairs, groups: int = 1) -> Tensor:
    in_rows, out_rows, ptr = pairs
    taps = []
    for k in range(ptr.shape[0] - 1):
        tap = slice(int(ptr[k]), int(ptr[k + 1]))
        a = x[in_rows[tap].long()].unflatten(1, (groups, -1))
        b = grad[out_rows[tap].long()].unflatten(1, (groups, -1))
        taps.append(torch.einsum("ngi,ngo->igo", a, b).flatten(1))
    return torch.stack(taps)


@torch.library.register_fake("perception::conv")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    map: Any,
    transposed: Any,
    num_out: int,
    groups: int,
    tf32: bool,
) -> Tensor:
    return x.new_empty(num_out, weight.shape[2])


@torch.library.register_fake("perception::conv_weight_grad")
def _(
    x: Tensor, grad: Tensor, map: Any, transposed: Any, groups: int, tf32: bool, wide: bool
) -> Tensor:
    dtype = torch.float32 if wide and x.dtype != torch.float64 else x.dtype
    return x.new_empty(map[-1].shape[0] - 1, x.shape[1] // groups, grad.shape[1], dtype=dtype)


def _swap_channels(weight: Tensor, groups: int) -> Tensor:
    """``[K, Cin / g, Cout] -> [K, Cout / g, Cin]``, group by group."""
    if groups == 1:
        return weight.transpose(1, 2)
    return weight.unflatten(2, (groups, -1)).permute(0, 3, 2, 1).flatten(2)


def _reverse(plan: list[Tensor], transposed: list[Tensor], rows: int) -> list[Tensor]:
    if transposed:
        return transposed
    in_rows, out_rows, tap_ptr = plan
    return list(transpose_map(in_rows, out_rows, tap_ptr, rows))


def product_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: list[Tensor],
    transposed: list[Tensor],
    groups: int,
    tf32: bool,
    wide: bool,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """By x, weight and bias, as far as ``wanted``; that by the weight in float32 at least with ``wide``."""
    by_x = by_weight = by_bias = None
    reverse = _reverse(plan, transposed, x.shape[0]) if wanted[0] or wanted[1] else []
    again, back = plan, reverse
    if (
        not torch.is_grad_enabled()
    ):  # nobody asks for the gradients of these: the lists may be short
        plan, reverse, again, back = plan[-3:], reverse[:3], [], []
    if wanted[0]:
        swapped = _swap_channels(weight, groups)
        by_x = ops.conv(grad, swapped, None, reverse, again, x.shape[0], groups, tf32)
    if wanted[1]:
        by_weight = ops.conv_weight_grad(x, grad, plan, back, groups, tf32, wide)
    if bias is not None and wanted[2]:
        by_bias = sum_rows(grad)
    return by_x, by_weight, by_bias


def _setup_conv(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, bias, plan, transposed, _, ctx.groups, ctx.tf32 = inputs
    ctx.split = len(plan)
    ctx.save_for_backward(x, weight, bias, *plan, *transposed)


def _conv_backward(ctx: Any, grad: Tensor) -> tuple:
    x, weight, bias, *lists = ctx.saved_tensors
    plan, transposed = lists[: ctx.split], lists[ctx.split :]
    wanted = ctx.needs_input_grad
    found = product_gradients(
        grad, x, weight, bias, plan, transposed, ctx.groups, ctx.tf32, False, wanted
    )
    return *found, [None] * len(plan), [None] * len(transposed), None, None, None


def _setup_weight_grad(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, grad, plan, transposed, ctx.groups, ctx.tf32, _ = inputs
    ctx.split = len(plan)
    ctx.save_for_backward(x, grad, *plan, *transposed)


def _weight_grad_backward(ctx: Any, second: Tensor) -> tuple:
    x, grad, *lists = ctx.saved_tensors
    plan, transposed = lists[: ctx.split], lists[ctx.split :]
    reverse = _reverse(plan, transposed, x.shape[0])
    by_x = by_grad = None
    second = second.to(x.dtype)
    if ctx.needs_input_grad[0]:
        swapped = _swap_channels(second, ctx.groups)
        by_x = ops.conv(grad, swapped, None, reverse, plan, x.shape[0], ctx.groups, ctx.tf32)
    if ctx.needs_input_grad[1]:
        rows = grad.shape[0]
        by_grad = ops.conv(x, second, None, plan, reverse, rows, ctx.groups, ctx.tf32)
    return by_x, by_grad, [None] * len(plan), [None] * len(transposed), None, None, None


torch.library.register_autograd("perception::conv", _conv_backward, setup_context=_setup_conv)
torch.library.register_autograd(
    "perception::conv_weight_grad", _weight_grad_backward, setup_context=_setup_weight_grad
)
