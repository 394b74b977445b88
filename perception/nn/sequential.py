"""Layers one after the other, with what belongs together done in one step."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

from perception._native import ops
from perception.nn.conv import Conv, ConvTranspose, GenerativeConvTranspose
from perception.nn.norm import BatchNorm, gradients_of
from perception.nn.pointwise import Linear, ReLU
from perception.sparse.conv import as_dtype, below_autograd, product_dtype
from perception.sparse.conv import conv as sparse_conv
from perception.sparse.sites import Sites
from perception.sparse.tensor import SparseTensor

__all__ = ["Residual", "Sequential", "fuse"]

_CONVOLUTIONS = (Conv, ConvTranspose, GenerativeConvTranspose, Linear)


class Sequential(nn.Sequential):
    """``torch.nn.Sequential`` that runs `Conv` → `BatchNorm` → `ReLU` as one step (on the CPU `Linear` too).

    In training the three are one node of the graph; in evaluation without gradients one pass over
    the output, on tensor cores one kernel: what lies between them is never rounded nor written.
    Names, state and results (up to that rounding) are those of ``torch.nn.Sequential``. A layer
    that is watched by a hook runs by itself.

    >>> import torch, perception.nn as pnn
    >>> net = pnn.Sequential(pnn.Conv(4, 8), pnn.BatchNorm(8), pnn.ReLU())
    """

    def forward(self, input: Any, residual: SparseTensor | None = None) -> Any:
        """
        Args:
            residual: sparse tensor on the sites of the result; the result is then
                ``relu(layers(input) + residual)``.
        """
        return run_layers(tuple(self), input, residual)


def run_layers(layers: tuple[nn.Module, ...], x: Any, residual: SparseTensor | None = None) -> Any:
    """``Sequential(*layers)(x, residual)`` without the module."""
    at, count = 0, len(layers)
    while at < count:
        layer = layers[at]
        conv = layer if type(layer) in _CONVOLUTIONS and at + 1 < count else None
        norm = layer if conv is None else layers[at + 1]
        if not _is_fusible(conv, norm, x):
            x = layer(x)
            at += 1
            continue
        at += 1 if conv is None else 2
        relu = at < count and type(layers[at]) is ReLU and not _is_watched(layers[at])
        at += relu
        if residual is not None and at == count and not relu:
            return _step(conv, norm, x, residual, True)
        x = _step(conv, norm, x, None, relu)
    if residual is not None:
        x = x + residual
        x = x.replace(torch.relu(x.features))
    return x


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )


def _is_fusible(conv: nn.Module | None, norm: nn.Module, x: object) -> bool:
    """Whether ``norm``, after ``conv`` if given, is what `_step` takes."""
    if not isinstance(norm, BatchNorm) or not isinstance(x, SparseTensor) or _is_watched(norm):
        return False
    if conv is None:
        return x.num_channels == norm.num_features
    if isinstance(conv, Linear):
        wide: object = conv.out_features if conv.is_product(x) else None
    else:
        wide = conv.out_channels
    return wide == norm.num_features and not _is_watched(conv)


def _step(
    conv: Any, norm: Any, x: SparseTensor, residual: SparseTensor | None, relu: bool
) -> SparseTensor:
    """The convolution (if any), the norm, plus the residual, negatives cut to zero with ``relu``."""
    if conv is None:
        add = _rows(residual, x.sites, x.dtype)
        return x.replace(norm.normalize(x.features, add, relu))
    plan, out, ancestors = conv.plan(x)
    # Straight from the dictionaries: asking a module costs a microsecond each, on a slow host three.
    parameters, affine, buffers = conv._parameters, norm._parameters, norm._buffers
    features, weight, bias, groups = (
        x.features,
        conv.kernel if type(conv) is Linear else parameters["weight"],
        parameters.get("bias"),
        conv.groups,
    )
    scale, shift = affine["weight"], affine["bias"]
    dtype, tf32 = product_dtype(features, weight, bias, groups)
    add = _rows(residual, out, dtype)
    learns = torch.is_grad_enabled() and (
        features.requires_grad
        or weight.requires_grad
        or (bias is not None and bias.requires_grad)
        or (scale is not None and scale.requires_grad)
        or (shift is not None and shift.requires_grad)
        or (add is not None and add.requires_grad)
    )
    alone = type(norm) is BatchNorm and not torch.compiler.is_compiling()
    rows = out.num_sites
    by_batch = norm.uses_batch_statistics(rows)
    if alone and learns and by_batch:
        maps, reverse = plan.lists(features.shape[0], True)
        running = norm.running() or _UNTRACKED
        how = _How(dtype, maps, reverse, rows, groups, tf32, norm.eps, relu, running)
        y = _ConvNorm.apply(features, weight, bias, scale, shift, add, how)
    elif alone and not learns and not by_batch and buffers["running_mean"] is not None:
        maps, _ = plan.lists(features.shape[0], False)
        statistics = buffers["running_mean"], buffers["running_var"]
        product = as_dtype(features, dtype), weight, bias, maps, rows, groups, tf32
        with below_autograd():
            y = ops.conv_norm(*product, *statistics, scale, shift, norm.eps, add, relu)
    else:
        y = norm.normalize(sparse_conv(features, weight, bias, plan, rows, groups), add, relu)
    return SparseTensor._make(y, out, ancestors)


def _rows(residual: SparseTensor | None, sites: Sites, dtype: torch.dtype) -> Tensor | None:
    if residual is None:
        return None
    if not residual.sites.same_as(sites):
        raise ValueError(
            f"the residual is on {residual.num_sites} other sites than the result, which has "
            f"{sites.num_sites}; the body must keep the sites"
        )
    return as_dtype(residual.features, dtype)


_UNTRACKED = None, None, None, 0.0


class _How(NamedTuple):
    """What `_ConvNorm` is told beside tensors."""

    dtype: torch.dtype
    plan: list[Tensor]
    reverse: list[Tensor]
    rows: int
    groups: int
    tf32: bool
    eps: float
    relu: bool
    running: tuple


class _ConvNorm(torch.autograd.Function):
    """Convolution, batch normalization by the batch, residual and ReLU as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor | None,
        shift: Tensor | None,
        residual: Tensor | None,
        how: _How,
    ) -> Tensor:
        x = as_dtype(features, how.dtype)
        product = x, weight, bias, how.plan[:3], how.rows, how.groups, how.tf32
        with below_autograd():
            y, z, mean, var, cast = ops.conv_batch_norm(
                *product, scale, shift, residual, how.relu, how.eps, *how.running
            )
        ctx.save_for_backward(
            features, weight, bias, scale, shift, z, mean, var, y if how.relu else None
        )
        ctx.residual = residual is not None
        ctx.cast = None if x is features else x, None if weight.dtype == how.dtype else cast
        ctx.how = how
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        features, weight, bias, scale, shift, z, mean, var, y = ctx.saved_tensors
        how, wanted = ctx.how, ctx.needs_input_grad
        if torch.is_grad_enabled():  # a second derivative is wanted: go through the definition
            inputs = (features, weight, bias, scale, shift)
            x, w = features.to(how.dtype), weight.to(how.dtype)
            b = None if bias is None else bias.to(how.dtype)
            z = ops.conv(x, w, b, how.plan, how.reverse, how.rows, how.groups, how.tf32)
            grad = grad if y is None else grad * (y > 0)
            y = ops.batch_norm(z, scale, shift, None, False, how.eps)[0]
            given = grad if ctx.residual else None
            return *gradients_of(y, grad, inputs, wanted), given, None
        x, w = ctx.cast
        x = features if x is None else x
        w = weight if w is None else w
        cut = y is not None
        asked = wanted[0] + 2 * wanted[1] + 4 * wanted[2] + 8 * (wanted[5] and cut)
        product = (
            how.plan[-3:],
            how.reverse[:3],
            how.groups,
            how.tf32,
            weight.dtype == torch.float32,
        )
        with below_autograd():
            by_x, by_weight, by_bias, by_scale, by_shift, by_residual = (
                ops.conv_batch_norm_backward(
                    grad, x, w, *product, z, y, scale, mean, var, how.eps, asked
                )
            )
        return (
            as_dtype(by_x, features.dtype) if wanted[0] else None,
            as_dtype(by_weight, weight.dtype) if wanted[1] else None,
            as_dtype(by_bias, bias.dtype) if wanted[2] else None,
            None if scale is None else as_dtype(by_scale, scale.dtype),
            None if shift is None else as_dtype(by_shift, shift.dtype),
            (by_residual if cut else grad) if ctx.residual else None,
            None,
        )


def _fake_like(tensor: Tensor, wanted: bool, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(tensor, dtype=dtype) if wanted else tensor.new_empty(0)


@torch.library.register_fake("perception::conv_norm")
def _(x: Tensor, weight: Tensor, bias: Any, map: Any, num_out: int, *_: Any) -> Tensor:
    return x.new_empty(num_out, weight.shape[2])


@torch.library.register_fake("perception::conv_batch_norm")
def _(
    x: Tensor, weight: Tensor, bias: Any, map: Any, num_out: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    z = x.new_empty(num_out, weight.shape[2])
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean = x.new_empty(weight.shape[2], dtype=wide)
    cast = _fake_like(weight, weight.dtype != x.dtype, x.dtype).to(x.dtype)
    return torch.empty_like(z), z, mean, torch.empty_like(mean), cast


@torch.library.register_fake("perception::conv_batch_norm_backward")
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    map: Any,
    transposed: Any,
    groups: int,
    tf32: bool,
    wide: bool,
    z: Tensor,
    y: Tensor | None,
    scale: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
    wanted: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    widened = torch.float32 if wide and x.dtype != torch.float64 else x.dtype
    return (
        _fake_like(x, bool(wanted & 1)),
        _fake_like(weight, True, widened) if wanted & 2 else x.new_empty(0),
        x.new_empty(weight.shape[2] if wanted & 4 else 0),
        torch.empty_like(mean),
        torch.empty_like(mean),
        z.new_empty(z.shape[0] if wanted & 8 else 0, z.shape[1]),
    )


class Residual(nn.Module):
    """``relu(body(x) + shortcut(x))`` (He et al., *Deep Residual Learning*, CVPR 2016).

    Args:
        body: layers that keep the sites.
        shortcut: how ``x`` gets the channels of the body's result; None where it has them.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None):
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: SparseTensor) -> SparseTensor:
        around = self.shortcut(x)
        if type(self.body) is Sequential:
            return self.body(x, around)
        y = self.body(x) + around
        return y.replace(torch.relu(y.features))


def fuse(module: nn.Module) -> nn.Module:
    """Turns every ``torch.nn.Sequential`` inside (and the module itself) into a `Sequential`, in place."""
    for child in module.modules():
        if type(child) is nn.Sequential:
            child.__class__ = Sequential
    return module
