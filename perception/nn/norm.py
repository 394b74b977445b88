"""Normalization of features over the sites that exist."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perception._native import ops
from perception.nn.conv import check_input
from perception.nn.pooling import pool_segments
from perception.sparse.conv import below_autograd
from perception.sparse.ops import segment_sum, sum_rows
from perception.sparse.tensor import SparseTensor

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm"]


def _fake_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    stats = x.new_empty(
        x.shape[1], dtype=torch.float64 if x.dtype == torch.float64 else torch.float32
    )
    return torch.empty_like(x), stats, torch.empty_like(stats)


torch.library.register_fake("perception::batch_norm")(_fake_batch_norm)
torch.library.register_fake("perception::batch_norm_tracked")(_fake_batch_norm)


@torch.library.register_fake("perception::batch_norm_backward")
def _(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = x.new_empty(x.shape if residual else (0, x.shape[1]))
    return torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean), given


def batch_norm_twin(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalization over the rows of ``[N, C]``, plus ``residual [N, C]``, negatives cut to zero
    with ``relu``; and the mean and biased variance it used."""
    mean = sum_rows(x) / x.shape[0]
    centred = x - mean
    var = sum_rows(centred * centred) / x.shape[0]
    y = centred * torch.rsqrt(var + eps)
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    y = y if residual is None else y + residual
    return torch.relu(y) if relu else y, mean, var


def _setup_batch_norm(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, weight, bias, residual, relu, ctx.eps = inputs
    y, mean, var = output
    ctx.save_for_backward(x, weight, bias, mean, var, y if relu else None)
    ctx.residual = residual is not None
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)


def _batch_norm_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple:
    x, weight, bias, mean, var, y = ctx.saved_tensors
    if grad is None:
        return (None,) * 6
    if torch.is_grad_enabled():  # a second derivative is wanted: go through the definition
        grad = grad if y is None else grad * (y > 0)
        inputs = (x, weight, bias)
        out = batch_norm_twin(*inputs, None, False, ctx.eps)[0]
        given = grad if ctx.residual else None
        return *gradients_of(out, grad, inputs, ctx.needs_input_grad), given, None, None
    with below_autograd():
        dx, dweight, dbias, dresidual = norm_gradients(
            grad, x, y, weight, bias, mean, var, ctx.eps, ctx.residual
        )
    return dx, dweight, dbias, dresidual, None, None


def gradients_of(
    out: Tensor, grad: Tensor, inputs: tuple[Tensor | None, ...], wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Differentiable gradients of ``out`` by those of ``inputs`` that are wanted."""
    asked = [t for t, yes in zip(inputs, wanted, strict=False) if yes and t is not None]
    found = iter(torch.autograd.grad(out, asked, grad, create_graph=True, allow_unused=True))
    return tuple(
        next(found) if yes and t is not None else None
        for t, yes in zip(inputs, wanted, strict=False)
    )


def norm_gradients(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
    residual: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """By x, weight, bias and residual; ``y`` is the result where it went through a ReLU."""
    cut = y is not None
    dx, dweight, dbias, dresidual = ops.batch_norm_backward(
        grad, x, y, weight, mean, var, eps, residual and cut
    )
    return (
        dx,
        None if weight is None else dweight.to(weight.dtype),
        None if bias is None else dbias.to(bias.dtype),
        (dresidual if cut else grad) if residual else None,
    )


torch.library.register_autograd(
    "perception::batch_norm", _batch_norm_backward, setup_context=_setup_batch_norm
)


class _BatchNorm(torch.autograd.Function):
    """The operator with the same gradient, at a fifth of the dispatcher's host time.

    ``running``: mean, variance, number of batches and momentum of the running statistics, which are
    moved; or nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        relu: bool,
        eps: float,
        running: tuple,
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = (x, weight, bias, residual, relu, eps)
        with below_autograd():
            op = ops.batch_norm_tracked if running else ops.batch_norm
            output = op(*inputs, *running)
        _setup_batch_norm(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *statistics: Any) -> tuple:
        return *_batch_norm_backward(ctx, grad, *statistics), None


@torch.library.register_fake("perception::track_statistics")
def _(
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
    mean: Tensor,
    var: Tensor,
    unbias: float,
    momentum: float,
) -> None:
    return None


@torch.library.register_fake("perception::normalize")
def _(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    eps: float,
) -> Tensor:
    return torch.empty_like(x)


def normalize_twin(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    eps: float,
) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias + residual`` for ``[N, C]``, in float32 at least;
    negatives cut to zero with ``relu``."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = (x.to(wide) - mean.to(wide)) * torch.rsqrt(var.to(wide) + eps)
    y = y if weight is None else y * weight.to(wide)
    y = y if bias is None else y + bias.to(wide)
    y = y if residual is None else y + residual.to(wide)
    return (torch.relu(y) if relu else y).to(x.dtype)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization over all sites of the batch, as ``torch.nn.BatchNorm1d`` over ``[N, C]``.

    Sums run in a fixed order, so that the result has the same bits with any number of threads. In
    training with fewer than two sites there is no variance: the running statistics are used.

    Arguments and state are those of ``torch.nn.BatchNorm1d``.
    """

    def uses_batch_statistics(self, sites: int) -> bool:
        """Whether features of so many sites are normalized by their own statistics."""
        return (self.training or not self.track_running_stats) and sites >= 2

    def normalize(
        self, features: Tensor, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        """The layer on features ``[N, C]``; then plus ``residual [N, C]``, negatives cut to zero with
        ``relu``, all in one pass."""
        if not self.uses_batch_statistics(features.shape[0]):
            return self._with_running(features, residual, relu)
        inputs = (features, self.weight, self.bias, residual, relu, self.eps)
        if torch.compiler.is_compiling():
            y, mean, var = ops.batch_norm(*inputs)
            self._track(mean, var, features.shape[0])
            return y
        return _BatchNorm.apply(*inputs, self.running())[0]

    def running(self) -> tuple:
        """What moves with a training batch: mean, variance, number of batches, and the momentum."""
        if not self.training or not self.track_running_stats:
            return ()
        buffers = self._buffers
        mean, var = buffers["running_mean"], buffers["running_var"]
        batches, momentum = buffers["num_batches_tracked"], self.momentum
        if mean is None or batches is None:
            return ()
        if momentum is None:
            momentum = 1.0 / (float(batches) + 1)
        return mean, var, batches, momentum

    def _track(self, mean: Tensor, var: Tensor, count: float) -> None:
        """Moves the running statistics towards a batch's mean and biased variance."""
        running = self.running()
        if running:
            *statistics, momentum = running
            unbias = count / (count - 1)
            ops.track_statistics(*statistics, mean.detach(), var.detach(), unbias, momentum)

    def _with_running(self, features: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        mean, var, weight, bias = self.running_mean, self.running_var, self.weight, self.bias
        if mean is None or var is None:
            y = features if residual is None else features + residual
            return torch.relu(y) if relu else y
        learns = torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (features, weight, bias, residual)
        )
        apply = normalize_twin if learns else ops.normalize
        return apply(features, mean, var, weight, bias, residual, relu, self.eps)

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        check_input(self, x)
        if x.num_channels != self.num_features:
            raise ValueError(
                f"BatchNorm has {self.num_features} features and the tensor {x.num_channels} channels"
            )
        return x.replace(self.normalize(x.features))


class GroupNorm(nn.GroupNorm):
    """Group normalization over the sites of each sample, as ``torch.nn.GroupNorm`` over ``[B, C, *]``
    (Wu and He, ECCV 2018), counting only sites that exist."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        check_input(self, x)
        if x.num_channels != self.num_channels:
            raise ValueError(
                f"{type(self).__name__} has {self.num_channels} channels and the tensor {x.num_channels}"
            )
        order, ptr = x.sites.by_sample()
        sample = x.coords[:, 0].long()
        # A group's statistics are the means of its channels' statistics.
        features = x.features if x.dtype == torch.float64 else x.features.float()
        mean = self._per_group(pool_segments(features, order, ptr, "avg"))
        centred = features - spread(mean, sample)
        var = self._per_group(pool_segments(centred * centred, order, ptr, "avg"))
        y = centred * spread(torch.rsqrt(var + self.eps), sample)
        if self.weight is not None:
            y = y * self.weight
        if self.bias is not None:
            y = y + self.bias
        return x.replace(y.to(x.dtype))

    def _per_group(self, channels: Tensor) -> Tensor:
        grouped = channels.unflatten(1, (self.num_groups, -1)).mean(2, keepdim=True)
        return grouped.expand(-1, -1, self.num_channels // self.num_groups).flatten(1)


def spread(per_sample: Tensor, sample: Tensor) -> Tensor:
    """``per_sample[sample]``, with a gradient that sums in a fixed order."""
    return segment_sum(
        per_sample, sample.int(), torch.arange(len(sample) + 1, device=sample.device)
    )


class InstanceNorm(GroupNorm):
    """Instance normalization: every channel of every sample over its sites, as
    ``torch.nn.InstanceNorm3d(affine=True)``, counting only sites that exist."""

    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__(num_channels, num_channels, eps, affine)


class LayerNorm(nn.LayerNorm):
    """Layer normalization over the channels of each site, as ``torch.nn.LayerNorm`` over ``[N, C]``."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        check_input(self, x)
        return x.replace(super().forward(x.features))
