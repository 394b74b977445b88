"""Batch normalization over the sites of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from perception._native import ops
from perception.nn.norm import BatchNorm
from perception.sparse.conv import below_autograd

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(BatchNorm):
    """`BatchNorm` with statistics over the sites of all processes of the default group.

    Every process may have a different number of sites, none included (Peng et al., *MegDet*,
    CVPR 2018). Without an initialized process group it is `BatchNorm`. It has first derivatives only.
    """

    def normalize(
        self, features: Tensor, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not distributed or not (self.training or not self.track_running_stats):
            return super().normalize(features, residual, relu)
        return self._synchronized(features, residual, relu)

    @torch.compiler.disable
    def _synchronized(self, features: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        count, mean, var = _statistics_of_all(features.detach())
        running_mean, running_var = self.running_mean, self.running_var
        if running_mean is None or running_var is None:
            if count < 2:
                return self._with_running(features, residual, relu)
        else:  # chosen on the device, which nobody has to wait for
            self._follow(count, mean, var)
            enough = count >= 2
            mean = torch.where(enough, mean, running_mean.to(mean.dtype))
            var = torch.where(enough, var, running_var.to(var.dtype))
        given = features, self.weight, self.bias, residual
        output: Tensor = _Synchronized.apply(*given, relu, self.eps, count, mean, var)
        return output

    def _follow(self, count: Tensor, mean: Tensor, var: Tensor) -> None:
        running = self.running()
        if running:
            running_mean, running_var, batches, momentum = running
            enough = count >= 2
            step = (momentum * enough.double()).to(running_mean.dtype)
            unbiased = var * (count / (count - 1).clamp(min=1)).to(var.dtype)
            running_mean.lerp_(mean.to(running_mean.dtype), step)
            running_var.lerp_(unbiased.to(running_var.dtype), step)
            batches.add_(enough)

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """Replaces every `BatchNorm` inside a module, keeping parameters and statistics."""
        if isinstance(module, BatchNorm) and not isinstance(module, SyncBatchNorm):
            out = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
            )
            out.weight, out.bias = module.weight, module.bias
            out.running_mean, out.running_var = module.running_mean, module.running_var
            out.num_batches_tracked = module.num_batches_tracked
            out.training = module.training
            return out
        for name, child in module.named_children():
            setattr(module, name, cls.convert(child))
        return module


def _statistics_of_all(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sites of all processes: their number ``[]``, mean and biased variance ``[C]``, of which every
    process finds the same bits (Chan et al., *Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances*, 1979)."""
    count, channels = x.shape
    own = torch.zeros(1 + 2 * channels, dtype=torch.float64, device=x.device)
    if count:
        _, mean, var = ops.batch_norm(x, None, None, None, False, 0.0)
        own[0] = count
        own[1 : 1 + channels] = mean
        own[1 + channels :] = var
    stats = torch.float64 if x.dtype == torch.float64 else torch.float32
    everyone = own.new_empty(torch.distributed.get_world_size(), own.numel())
    torch.distributed.all_gather(list(everyone.unbind()), own)
    counts, means, variances = everyone.split([1, channels, channels], 1)
    total = counts.sum()
    share = counts / total.clamp(min=1)
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean) ** 2)).sum(0)
    return total, mean.to(stats), var.to(stats)


class _Synchronized(torch.autograd.Function):
    """Normalization by the ``mean`` and ``var`` of ``count`` sites, of which ``x`` has some.

    The layers' collectives are the plain ones: torch's differentiable ones keep the process group, and
    with it its threads, until the interpreter ends, which then may abort.
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
        count: Tensor,
        mean: Tensor,
        var: Tensor,
    ) -> Tensor:
        with below_autograd():
            y = ops.normalize(x, mean, var, weight, bias, residual, relu, eps)
        ctx.save_for_backward(x, weight, bias, y if relu else None, count, mean, var)
        ctx.eps, ctx.residual = eps, residual is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, weight, bias, y, count, mean, var = ctx.saved_tensors
        rows, cut = x.shape[0], y is not None
        with below_autograd():
            if rows:
                dx, dweight, dbias, dresidual = ops.batch_norm_backward(
                    grad, x, y, weight, mean, var, ctx.eps, ctx.residual and cut
                )
            else:
                dx, dweight, dbias, dresidual = grad, mean * 0, mean * 0, grad
            own = torch.stack([dweight, dbias]).double()
            everyone = own.clone()
            torch.distributed.all_reduce(everyone)
            if rows:
                # The operator took the means over its own rows from the gradient: give them back, and
                # take those over all rows, or none where running statistics were used.
                back = own / rows - everyone / count.clamp(min=1) * (count >= 2)
                scale = torch.rsqrt(var.double() + ctx.eps)
                scale = scale if weight is None else scale * weight
                by_deviation, offset = (back * scale).to(mean.dtype)
                dx = ops.normalize(x, mean, var, by_deviation, offset, dx, False, ctx.eps)
        return (
            dx,
            None if weight is None else dweight.to(weight.dtype),
            None if bias is None else dbias.to(bias.dtype),
            (dresidual if cut else grad) if ctx.residual else None,
            *(None,) * 5,
        )
