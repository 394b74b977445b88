"""MinkUNet: the residual U-Net over sparse sites that most sparse segmentation networks are.

Sources: Choy, Gwak, Savarese, "4D Spatio-Temporal ConvNets" (CVPR 2019) for the family 14, 18, 34,
50 (one 5-wide stem, residual blocks of ResNet-18/34/50); Tang et al., "Searching Efficient 3D
Architectures with Sparse Point-Voxel Convolution" (ECCV 2020) for the 42-layer variant (two 3-wide
stem convolutions, two blocks a stage). With `block="convnext"` the residual blocks are those of Liu
et al., "A ConvNet for the 2020s" (CVPR 2022), and Woo et al., "ConvNeXt V2" (CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from perception.nn import (
    BatchNorm,
    Conv,
    ConvNeXtBlock,
    ConvTranspose,
    Linear,
    ReLU,
    Residual,
    Sequential,
)
from perception.nn.sequential import run_layers
from perception.sparse import SparseTensor, cat

Kernel = Literal["cube", "cross", "hybrid", "causal"]
Block = Literal["residual", "convnext"]


@dataclass(frozen=True)
class _Depth:
    """What the depth of the name stands for: blocks a stage, the kind of block, and the stem."""

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    stem_kernels: tuple[int, ...]
    channels: tuple[int, ...]
    bottleneck: bool = False


_DEPTHS: dict[int, _Depth] = {
    14: _Depth((1,), (1,), (5,), (32, 32, 64, 128, 256, 128, 128, 96, 96)),
    18: _Depth((2,), (2,), (5,), (32, 32, 64, 128, 256, 128, 128, 96, 96)),
    34: _Depth((2, 3, 4, 6), (2,), (5,), (32, 32, 64, 128, 256, 256, 128, 96, 96)),
    50: _Depth((2, 3, 4, 6), (2,), (5,), (32, 32, 64, 128, 256, 256, 128, 96, 96), bottleneck=True),
    42: _Depth((2,), (2,), (3, 3), (32, 32, 64, 128, 256, 256, 128, 96, 96)),
}


class BasicBlock(Residual):
    """Two 3-wide convolutions and a shortcut (He et al. 2016); 1x1 shortcut where widths differ."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, dim: int, kernel: Kernel) -> None:
        body = Sequential(
            Conv(in_channels, channels, 3, bias=False, dim=dim, kernel=kernel),
            BatchNorm(channels),
            ReLU(inplace=True),
            Conv(channels, channels, 3, bias=False, dim=dim, kernel=kernel),
            BatchNorm(channels),
        )
        super().__init__(body, _shortcut(in_channels, channels))


class Bottleneck(Residual):
    """1x1, 3-wide, 1x1 convolutions and a shortcut (He et al. 2016); gives 4 x `channels`."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, dim: int, kernel: Kernel) -> None:
        out_channels = channels * self.expansion
        body = Sequential(
            Linear(in_channels, channels, bias=False),
            BatchNorm(channels),
            ReLU(inplace=True),
            Conv(channels, channels, 3, bias=False, dim=dim, kernel=kernel),
            BatchNorm(channels),
            ReLU(inplace=True),
            Linear(channels, out_channels, bias=False),
            BatchNorm(out_channels),
        )
        super().__init__(body, _shortcut(in_channels, out_channels))


class ConvNeXt(Sequential):
    """`ConvNeXtBlock` with a 5-wide depthwise convolution; a linear layer before where widths differ."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, dim: int, kernel: Kernel) -> None:
        before = [] if in_channels == channels else [Linear(in_channels, channels)]
        super().__init__(*before, ConvNeXtBlock(channels, 5, dim=dim, kernel=kernel))


_Blocks = type[BasicBlock] | type[Bottleneck] | type[ConvNeXt]


class UpStage(nn.Module):
    """Transposed convolution back to finer sites, the encoder's features beside it, then blocks."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        channels: int,
        blocks: int,
        *,
        stride: tuple[int, ...],
        block: _Blocks,
        kernel: Kernel,
    ) -> None:
        super().__init__()
        dim = len(stride)
        self.up = ConvTranspose(
            in_channels, channels, stride, stride=stride, bias=False, dim=dim, kernel="cube"
        )
        self.norm = Sequential(BatchNorm(channels), ReLU(inplace=True))
        self.blocks = _blocks(block, channels + skip_channels, channels, blocks, dim, kernel)

    def forward(self, x: SparseTensor, skip: SparseTensor) -> SparseTensor:
        y: SparseTensor = self.blocks(cat([run_layers((self.up, *self.norm), x), skip]))
        return y


class MinkUNet(nn.Module):
    """Residual U-Net from sites to one row of class scores a site.

    A stem at full resolution, S stages that each halve the resolution (kernel and stride `stride`)
    and run residual blocks, S stages that double it (transposed convolution onto the very sites of
    the encoder, skip by concatenation, residual blocks), and a pointwise linear layer.

    Args:
        in_channels: features of a site.
        num_classes: scores of a site.
        depth: 14, 18, 34 or 50 as in MinkowskiEngine (one 5-wide stem convolution; 50 has
            bottleneck blocks), or 42 as in SPVNAS (two 3-wide stem convolutions, two blocks a
            stage; 21.7 M parameters at full width).
        dim: spatial axes D of the sites.
        channels: widths of the stem, the S encoder stages and the S decoder stages: 1 + 2 S
            integers, coarsest stage in the middle. By default those of the published network of
            this depth (14 and 18: the "A" widths, 34 and 50: the "C" widths), S = 4. Depths 34 and
            50 need S = 4; the others take any S.
        width: factor on every width, rounded down, as the published 0.5x and 0.64x networks.
        stride: kernel and stride of a stage, an integer or one an axis. `(2, 2, 2, 1)` keeps the
            time axis of a 4D network at full rate, as published; the stem is then one frame wide.
        kernel: taps of the 3-wide convolutions in the blocks and of the stem: "cube", "cross", or
            "hybrid" (cube over space, cross over the last axis), or "causal" (hybrid without a look
            ahead in time: with a stride of 1 along time, a running sequence costs a frame a frame).
        block: "residual" (two convolutions, or a bottleneck), or "convnext": `ConvNeXtBlock` with a
            depthwise convolution 5 wide; depth 50 has bottlenecks only.

    Shapes: `SparseTensor` with features `[N, in_channels]` to one on the same sites with
    `[N, num_classes]`. Every convolution but the last layer is without bias and followed by batch
    normalisation. Weights start at Kaiming-normal values over fan-out (He et al. 2015).

    Raises:
        ValueError: a depth that does not exist, or widths that do not fit it.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: int = 18,
        dim: int = 3,
        channels: Sequence[int] | None = None,
        width: float = 1.0,
        stride: int | Sequence[int] = 2,
        kernel: Kernel = "cube",
        block: Block = "residual",
    ) -> None:
        super().__init__()
        if depth not in _DEPTHS:
            known = ", ".join(map(str, sorted(_DEPTHS)))
            raise ValueError(f"MinkUNet: depth={depth} does not exist; use one of {known}")
        table = _DEPTHS[depth]
        widths = [int(c * width) for c in (table.channels if channels is None else channels)]
        stages = len(widths) // 2
        if len(widths) < 3 or len(widths) % 2 == 0 or min(widths) < 1:
            raise ValueError(
                f"MinkUNet: channels and width={width} give {widths}; give 1 + 2 S positive "
                "widths: stem, S encoder stages, S decoder stages"
            )
        strides = (stride,) * dim if isinstance(stride, int) else tuple(stride)
        if len(strides) != dim or min(strides) < 1:
            raise ValueError(
                f"MinkUNet: stride={stride} does not fit dim={dim}; give one positive integer or "
                "one an axis"
            )
        if block not in ("residual", "convnext") or (block == "convnext" and table.bottleneck):
            raise ValueError(
                f'MinkUNet: block={block!r} at depth={depth}; give "residual", or "convnext" at a depth '
                "other than 50"
            )
        kind: _Blocks = Bottleneck if table.bottleneck else BasicBlock
        if block == "convnext":
            kind = ConvNeXt
        encoder_blocks = _per_stage(table.encoder, stages, depth)
        decoder_blocks = _per_stage(table.decoder, stages, depth)

        self.args: dict[str, Any] = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "depth": depth,
            "dim": dim,
            "channels": widths,
            "stride": list(strides),
            "kernel": kernel,
            "block": block,
        }
        """JSON values that rebuild this network: ``MinkUNet(**net.args)``."""

        stem: list[nn.Module] = []
        current = in_channels
        for size in table.stem_kernels:
            sizes = tuple(size if s > 1 else 1 for s in strides)
            stem += [
                Conv(current, widths[0], sizes, bias=False, dim=dim, kernel=kernel),
                BatchNorm(widths[0]),
                ReLU(inplace=True),
            ]
            current = widths[0]
        self.stem = Sequential(*stem)

        skip_channels = [current]
        encoder: list[nn.Module] = []
        for out, count in zip(widths[1 : stages + 1], encoder_blocks, strict=True):
            encoder.append(
                Sequential(
                    Conv(current, current, strides, stride=strides, bias=False, dim=dim),
                    BatchNorm(current),
                    ReLU(inplace=True),
                    _blocks(kind, current, out, count, dim, kernel),
                )
            )
            current = out * kind.expansion
            skip_channels.append(current)
        self.encoder = nn.ModuleList(encoder)

        skip_channels.pop()
        decoder: list[nn.Module] = []
        for out, count in zip(widths[stages + 1 :], decoder_blocks, strict=True):
            decoder.append(
                UpStage(
                    current,
                    skip_channels.pop(),
                    out,
                    count,
                    stride=strides,
                    block=kind,
                    kernel=kernel,
                )
            )
            current = out * kind.expansion
        self.decoder = nn.ModuleList(decoder)
        self.head = Linear(current, num_classes)
        self.apply(_kaiming)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Class scores `[N, num_classes]` on the sites of `x` (features `[N, in_channels]`)."""
        x = self.stem(x)
        skips = []
        for down in self.encoder:
            skips.append(x)
            x = down(x)
        for up in self.decoder:
            x = up(x, skips.pop())
        scores: SparseTensor = self.head(x)
        return scores


def _per_stage(blocks: tuple[int, ...], stages: int, depth: int) -> tuple[int, ...]:
    if len(blocks) == 1:
        return blocks * stages
    if len(blocks) != stages:
        raise ValueError(
            f"MinkUNet: depth={depth} has {len(blocks)} stages, channels describes {stages}; give "
            f"{1 + 2 * len(blocks)} widths or choose depth 14, 18 or 42"
        )
    return blocks


def _blocks(
    block: _Blocks,
    in_channels: int,
    channels: int,
    count: int,
    dim: int,
    kernel: Kernel,
) -> Sequential:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers.append(block(in_channels, channels, dim=dim, kernel=kernel))
        in_channels = channels * block.expansion
    return Sequential(*layers)


def _shortcut(in_channels: int, out_channels: int) -> nn.Module | None:
    if in_channels == out_channels:
        return None
    return Sequential(Linear(in_channels, out_channels, bias=False), BatchNorm(out_channels))


def _kaiming(module: nn.Module) -> None:
    """Kaiming-normal over fan-out: taps x output channels, the fan of the backward product."""
    if isinstance(module, ConvNeXtBlock):
        module.reset_parameters()  # after its layers, which came before: as published
    elif isinstance(module, Conv | ConvTranspose):
        taps, _, out_channels = module.weight.shape
        nn.init.normal_(module.weight, std=(2.0 / (taps * out_channels)) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            with torch.no_grad():
                module.bias.zero_()
