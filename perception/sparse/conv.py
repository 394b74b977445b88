"""The sparse product: convolution given a kernel map, and its gradients.

The backward of a convolution is a convolution over the transposed map and a weight gradient; the
backwards of both are made of the same two operators, so that every derivative exists.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perception._native import ops
from perception.sparse.kernel_map import KernelMap, Pairs, transpose_map
from perception.sparse.ops import sum_rows

__all__ = ["conv"]


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
    device = features.device.type
    if torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        features = features.to(dtype)
        weight = weight if weight.dtype == torch.float64 else weight.to(dtype)
        bias = bias if bias is None or bias.dtype == torch.float64 else bias.to(dtype)
    for other in (weight,) if bias is None else (weight, bias):
        if other.dtype != features.dtype:
            raise TypeError(
                f"the features are {features.dtype} and the layer is {other.dtype}; "
                f"convert one of them with .to(...) or run under torch.autocast"
            )
    if features.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"the layer takes {weight.shape[1] * groups} channels and the features have {features.shape[1]}"
        )
    learns = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
    reverse = kernel_map.reverse(features.shape[0]) if learns else ()
    return ops.conv(features, weight, bias, list(kernel_map.pairs), list(reverse), num_out, groups)


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
) -> Tensor:
    return x.new_empty(num_out, weight.shape[2])


@torch.library.register_fake("perception::conv_weight_grad")
def _(x: Tensor, grad: Tensor, map: Any, transposed: Any, groups: int) -> Tensor:
    return x.new_empty(map[2].shape[0] - 1, x.shape[1] // groups, grad.shape[1])


def _swap_channels(weight: Tensor, groups: int) -> Tensor:
    """``[K, Cin / g, Cout] -> [K, Cout / g, Cin]``, group by group."""
    return weight.unflatten(2, (groups, -1)).permute(0, 3, 2, 1).flatten(2)


def _reverse(pairs: list[Tensor], transposed: list[Tensor], rows: int) -> list[Tensor]:
    in_rows, out_rows, tap_ptr = pairs
    return transposed or list(transpose_map(in_rows, out_rows, tap_ptr, rows))


def _setup_conv(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, bias, pairs, transposed, _, ctx.groups = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, *pairs, *transposed)


def _conv_backward(ctx: Any, grad: Tensor) -> tuple:
    x, weight, *tensors = ctx.saved_tensors
    pairs, groups = tensors[:3], ctx.groups
    reverse = _reverse(pairs, tensors[3:], x.shape[0])
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = ops.conv(
            grad, _swap_channels(weight, groups), None, reverse, pairs, x.shape[0], groups
        )
    if ctx.needs_input_grad[1]:
        grad_weight = ops.conv_weight_grad(x, grad, pairs, reverse, groups)
    if ctx.has_bias and ctx.needs_input_grad[2]:
        grad_bias = sum_rows(grad)
    return grad_x, grad_weight, grad_bias, [None] * 3, [None] * (len(tensors) - 3), None, None


def _setup_weight_grad(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, grad, pairs, transposed, ctx.groups = inputs
    ctx.save_for_backward(x, grad, *pairs, *transposed)


def _weight_grad_backward(ctx: Any, second: Tensor) -> tuple:
    x, grad, *tensors = ctx.saved_tensors
    pairs, groups = tensors[:3], ctx.groups
    reverse = _reverse(pairs, tensors[3:], x.shape[0])
    by_x = by_grad = None
    if ctx.needs_input_grad[0]:
        by_x = ops.conv(
            grad, _swap_channels(second, groups), None, reverse, pairs, x.shape[0], groups
        )
    if ctx.needs_input_grad[1]:
        by_grad = ops.conv(x, second, None, pairs, reverse, grad.shape[0], groups)
    return by_x, by_grad, [None] * 3, [None] * (len(tensors) - 3), None


torch.library.register_autograd("perception::conv", _conv_backward, setup_context=_setup_conv)
torch.library.register_autograd(
    "perception::conv_weight_grad", _weight_grad_backward, setup_context=_setup_weight_grad
)
