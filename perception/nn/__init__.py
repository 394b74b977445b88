"""Layers: all take and return one `SparseTensor`, so that ``torch.nn.Sequential`` composes them.

`Sequential` does the same and runs convolution, norm and ReLU as one step.
"""

from perception.nn.conv import Conv, ConvTranspose, GenerativeConvTranspose
from perception.nn.convnext import ConvNeXtBlock, GlobalResponseNorm
from perception.nn.crf import TrilateralCRF
from perception.nn.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from perception.nn.pointwise import (
    ELU,
    GELU,
    Dropout,
    Hardswish,
    LeakyReLU,
    Linear,
    Pointwise,
    PReLU,
    Prune,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from perception.nn.pooling import AvgPool, GlobalPool, MaxPool, SumPool, Unpool
from perception.nn.sequential import Residual, Sequential, fuse
from perception.nn.sync_norm import SyncBatchNorm

__all__ = [
    "ELU",
    "GELU",
    "AvgPool",
    "BatchNorm",
    "Conv",
    "ConvNeXtBlock",
    "ConvTranspose",
    "Dropout",
    "GenerativeConvTranspose",
    "GlobalPool",
    "GlobalResponseNorm",
    "GroupNorm",
    "Hardswish",
    "InstanceNorm",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool",
    "PReLU",
    "Pointwise",
    "Prune",
    "ReLU",
    "ReLU6",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SumPool",
    "SyncBatchNorm",
    "Tanh",
    "TrilateralCRF",
    "Unpool",
    "fuse",
]
