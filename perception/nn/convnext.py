"""ConvNeXt blocks on sparse tensors: depthwise convolution, then a pointwise network, around which x goes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.nn.conv import Conv, check_input
from perception.nn.norm import LayerNorm, spread
from perception.nn.pointwise import GELU, Linear
from perception.nn.pooling import pool_segments
from perception.nn.sequential import Sequential
from perception.sparse.tensor import SparseTensor

__all__ = ["ConvNeXtBlock", "GlobalResponseNorm"]


class GlobalResponseNorm(nn.Module):
    """Lets the channels of a sample compete (Woo et al., *ConvNeXt V2*, CVPR 2023, section 3.3).

    With ``G[c]`` the root of the sum of squares of channel c over the sites of the sample,
    ``y = x + bias + weight * x * G / (mean of G over the channels + eps)``. It starts as the identity.

    Args:
        num_channels: C.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        check_input(self, x)
        features = x.features if x.dtype == torch.float64 else x.features.float()
        squares = pool_segments(features * features, *x.sites.by_sample(), "sum")
        # A channel of zeros has no direction to grow into: no gradient, where a root's is infinite.
        norm = squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()
        share = norm / (norm.mean(1, keepdim=True) + self.eps)
        scale = 1 + self.weight * spread(share, x.coords[:, 0].long())
        return x.replace((features * scale + self.bias).to(x.dtype))

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


class ConvNeXtBlock(nn.Module):
    """``x + scale * f(x)`` with f: depthwise convolution, LayerNorm, pointwise to ``expansion`` times
    the channels, GELU, `GlobalResponseNorm`, pointwise back (Liu et al., *A ConvNet for the 2020s*,
    CVPR 2022, with the response norm of Woo et al., *ConvNeXt V2*, CVPR 2023).

    Args:
        channels: in and out.
        kernel_size: of the depthwise convolution, one integer or one an axis; 7 as published for
            pictures, which in space is 343 taps.
        dim: axes of the sites.
        kernel: taps of the depthwise convolution, see `Conv`.
        expansion: of the pointwise network.
        layer_scale: start of a learned factor a channel, 1e-6 as published in 2022, which then stands
            for the response norm; None for the response norm of 2023.

    >>> import torch, perception
    >>> x = perception.SparseTensor(torch.ones(2, 4), torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]]).int())
    >>> perception.nn.ConvNeXtBlock(4, 3)(x).features.shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Sequence[int] = 7,
        *,
        dim: int = 3,
        kernel: str | Tensor = "cube",
        expansion: int = 4,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        wide = expansion * channels
        self.body = Sequential(
            Conv(channels, channels, kernel_size, groups=channels, dim=dim, kernel=kernel),
            LayerNorm(channels, eps=1e-6),
            Linear(channels, wide),
            GELU(),
            *([GlobalResponseNorm(wide)] if layer_scale is None else []),
            Linear(wide, channels),
        )
        self.scale = (
            None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights normal with deviation 0.02 cut at 2, biases zero, as published."""
        for module in self.body:
            if isinstance(module, Conv | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        y: SparseTensor = self.body(x)
        change = y.features if self.scale is None else y.features * self.scale
        return x.replace(x.features + change)
