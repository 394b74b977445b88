"""Layers that act on the features of each site alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perception.nn.conv import check_input
from perception.sparse.conv import conv
from perception.sparse.kernel_map import KernelMap
from perception.sparse.sites import Sites
from perception.sparse.tensor import SparseTensor

__all__ = [
    "ELU",
    "GELU",
    "Dropout",
    "Hardswish",
    "LeakyReLU",
    "Linear",
    "PReLU",
    "Pointwise",
    "Prune",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


class Pointwise(nn.Module):
    """Lifts a torch module from features ``[N, C] -> [N, C']`` to sparse tensors.

    >>> import torch, perception
    >>> layer = perception.nn.Pointwise(torch.nn.Linear(4, 2))
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: SparseTensor) -> SparseTensor:
        check_input(self, x)
        return x.replace(self.module(x.features))


class _OnFeatures(nn.Module):
    """Mixed in before a torch module: takes and returns a sparse tensor."""

    # Untyped, for the torch modules declare a Tensor: it is SparseTensor -> SparseTensor.
    def forward(self, input: Any) -> Any:
        check_input(self, input)
        return input.replace(super().forward(input.features))


class ReLU(_OnFeatures, nn.ReLU):
    """``torch.nn.ReLU`` on the features of each site."""


class ReLU6(_OnFeatures, nn.ReLU6):
    """``torch.nn.ReLU6`` on the features of each site."""


class LeakyReLU(_OnFeatures, nn.LeakyReLU):
    """``torch.nn.LeakyReLU`` on the features of each site."""


class PReLU(_OnFeatures, nn.PReLU):
    """``torch.nn.PReLU`` on the features of each site."""


class ELU(_OnFeatures, nn.ELU):
    """``torch.nn.ELU`` on the features of each site."""


class GELU(_OnFeatures, nn.GELU):
    """``torch.nn.GELU`` on the features of each site."""


class SiLU(_OnFeatures, nn.SiLU):
    """``torch.nn.SiLU`` on the features of each site."""


class Hardswish(_OnFeatures, nn.Hardswish):
    """``torch.nn.Hardswish`` on the features of each site."""


class Sigmoid(_OnFeatures, nn.Sigmoid):
    """``torch.nn.Sigmoid`` on the features of each site."""


class Tanh(_OnFeatures, nn.Tanh):
    """``torch.nn.Tanh`` on the features of each site."""


class Softplus(_OnFeatures, nn.Softplus):
    """``torch.nn.Softplus`` on the features of each site."""


class Softmax(_OnFeatures, nn.Softmax):
    """``torch.nn.Softmax`` over the channels of each site by default."""

    def __init__(self, dim: int = 1):
        super().__init__(dim)


class Dropout(_OnFeatures, nn.Dropout):
    """``torch.nn.Dropout`` on the features of each site."""


class Linear(nn.Linear):
    """``torch.nn.Linear`` on the features of each site: a convolution with one tap."""

    groups = 1

    # Untyped, for torch's takes and returns a Tensor.
    def forward(self, input: Any) -> Any:
        check_input(self, input)
        if not self.is_product(input):
            return input.replace(super().forward(input.features))
        plan, sites, _ = self.plan(input)
        return input.replace(conv(input.features, self.kernel, self.bias, plan, sites.num_sites))

    @staticmethod
    def is_product(x: SparseTensor) -> bool:
        """Whether the engine's product is taken: on the CPU it is twice as fast as torch's."""
        return x.device.type == "cpu" and not torch.compiler.is_compiling()

    @property
    def kernel(self) -> Tensor:
        """The weight as that of a convolution, ``[1, in_features, out_features]``."""
        return self.weight.t()[None]

    def plan(self, x: SparseTensor) -> tuple[KernelMap, Sites, tuple[Sites, ...]]:
        """As `perception.nn.Conv.plan`."""
        if x.num_channels != self.in_features:
            raise ValueError(
                f"the layer takes {self.in_features} channels and the features have {x.num_channels}"
            )
        return x.sites.identity(), x.sites, x.ancestors


class Prune(nn.Module):
    """Drops sites: ``prune(x, mask [N] bool)``; a layer's face of ``SparseTensor.prune``."""

    def forward(self, x: SparseTensor, mask: Tensor) -> SparseTensor:
        return x.prune(mask)
