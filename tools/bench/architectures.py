"""Networks for the comparison, each written once and built from either library's layers.

- `unet`: stem of two submanifold convolutions at 32 channels, encoder 64-128-256, decoder
  128-96-96, two submanifold convolutions a stage, no residuals.
- `second`: the sparse encoder of SECOND (Yan et al., *SECOND*, Sensors 2018) as OpenPCDet's
  ``VoxelBackBone8x``.
- `centerpoint`: that of CenterPoint (Yin et al., *Center-based 3D Object Detection*, CVPR 2021) as
  OpenPCDet's ``VoxelResBackBone8x``.

Axes are x, y, z; strided 3-wide convolutions keep every site that a tap reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from perception.nn import BatchNorm, Conv, ConvTranspose, ReLU, Residual, Sequential
from perception.sparse import SparseTensor

__all__ = ["ENCODERS", "Kit", "OurKit", "centerpoint", "second", "unet"]

CUBE, PAIR = (3, 3, 3), (2, 2, 2)
COLUMN, HALVE_COLUMN = (1, 1, 3), (1, 1, 2)


class Kit(Protocol):
    """What a network is built from."""

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        size: Sequence[int],
        key: str,
        *,
        stride: Sequence[int] = (1, 1, 1),
        padding: Sequence[int] | None = None,
    ) -> nn.Module:
        """A submanifold convolution at stride 1, else one that keeps every site it reaches. Layers
        with one key share a map."""

    def up(self, in_channels: int, out_channels: int, size: Sequence[int], key: str) -> nn.Module:
        """The way back of the strided convolution with this key."""

    def norm(self, channels: int) -> nn.Module: ...

    def relu(self) -> nn.Module: ...

    def stack(self, *modules: nn.Module) -> nn.Module: ...

    def residual(self, body: nn.Module) -> nn.Module:
        """``relu(body(x) + x)``."""

    def replace(self, x: Any, features: Tensor) -> Any:
        """Other features at the same sites."""


class OurKit:
    """The layers of `perception.nn`."""

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        size: Sequence[int],
        key: str,
        *,
        stride: Sequence[int] = (1, 1, 1),
        padding: Sequence[int] | None = None,
    ) -> nn.Module:
        # A kernel as wide as its stride reaches just the strided sites.
        reaches = tuple(size) != tuple(stride) and any(step > 1 for step in stride)
        return Conv(
            in_channels,
            out_channels,
            size,
            stride=stride,
            padding="same" if padding is None else padding,
            sites="reach" if reaches else None,
            bias=False,
        )

    def up(self, in_channels: int, out_channels: int, size: Sequence[int], key: str) -> nn.Module:
        return ConvTranspose(in_channels, out_channels, size, stride=size, bias=False)

    def norm(self, channels: int) -> nn.Module:
        return BatchNorm(channels)

    def relu(self) -> nn.Module:
        return ReLU(inplace=True)

    def stack(self, *modules: nn.Module) -> nn.Module:
        return Sequential(*modules)

    def residual(self, body: nn.Module) -> nn.Module:
        return Residual(body)

    def replace(self, x: SparseTensor, features: Tensor) -> SparseTensor:
        return x.replace(features)


def _conv(kit: Kit, a: int, b: int, size: Sequence[int], key: str, **how: Any) -> list[nn.Module]:
    return [kit.conv(a, b, size, key, **how), kit.norm(b), kit.relu()]


class _UNet(nn.Module):
    def __init__(
        self, kit: Kit, in_channels: int, stem: int, encoder: Sequence[int], decoder: Sequence[int]
    ):
        super().__init__()
        self.kit = kit
        self.stem = kit.stack(
            *_conv(kit, in_channels, stem, CUBE, "s0"), *_conv(kit, stem, stem, CUBE, "s0")
        )
        widths = [stem]
        stages = []
        for level, width in enumerate(encoder, 1):
            stages.append(
                kit.stack(
                    *_conv(kit, widths[-1], width, PAIR, f"d{level}", stride=PAIR),
                    *_conv(kit, width, width, CUBE, f"s{level}"),
                    *_conv(kit, width, width, CUBE, f"s{level}"),
                )
            )
            widths.append(width)
        self.encoder = nn.ModuleList(stages)
        current = widths.pop()
        ups, bodies = [], []
        for width in decoder:
            level = len(widths) - 1
            skip = widths.pop()
            up = kit.up(current, width, PAIR, f"d{level + 1}")
            ups.append(kit.stack(up, kit.norm(width), kit.relu()))
            bodies.append(
                kit.stack(
                    *_conv(kit, width + skip, width, CUBE, f"s{level}"),
                    *_conv(kit, width, width, CUBE, f"s{level}"),
                )
            )
            current = width
        self.ups, self.bodies = nn.ModuleList(ups), nn.ModuleList(bodies)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        skips = []
        for stage in self.encoder:
            skips.append(x)
            x = stage(x)
        for up, body in zip(self.ups, self.bodies, strict=True):
            x = up(x)
            x = body(self.kit.replace(x, torch.cat([x.features, skips.pop().features], 1)))
        return x


def unet(
    kit: Kit,
    in_channels: int,
    *,
    stem: int = 32,
    encoder: Sequence[int] = (64, 128, 256),
    decoder: Sequence[int] = (128, 96, 96),
) -> nn.Module:
    """A plain U-Net; its output is on the sites of its input."""
    return _UNet(kit, in_channels, stem, encoder, decoder)


def _residual(kit: Kit, channels: int, key: str) -> nn.Module:
    """Two submanifold convolutions and the identity."""
    first = _conv(kit, channels, channels, CUBE, key)
    second = kit.conv(channels, channels, CUBE, key)
    return kit.residual(kit.stack(*first, second, kit.norm(channels)))


def second(kit: Kit, in_channels: int, *, width: int = 16) -> nn.Module:
    """Twelve convolutions, the last to a quarter of the height."""
    w = width
    layers = _conv(kit, in_channels, w, CUBE, "s0") + _conv(kit, w, w, CUBE, "s0")
    stages = ((w, 2 * w, None), (2 * w, 4 * w, None), (4 * w, 4 * w, (1, 1, 0)))
    for level, (before, after, padding) in enumerate(stages, 1):
        layers += _conv(kit, before, after, CUBE, f"d{level}", stride=PAIR, padding=padding)
        for _ in range(2):
            layers += _conv(kit, after, after, CUBE, f"s{level}")
    return kit.stack(*layers, *_last(kit, 4 * w, 8 * w))


def centerpoint(kit: Kit, in_channels: int, *, width: int = 16) -> nn.Module:
    """Twenty-one convolutions, two residual blocks a stage."""
    w = width
    layers = [kit.stack(*_conv(kit, in_channels, w, CUBE, "s0"))]
    layers += [_residual(kit, w, "s0") for _ in range(2)]
    stages = ((w, 2 * w, None), (2 * w, 4 * w, None), (4 * w, 8 * w, (1, 1, 0)))
    for level, (before, after, padding) in enumerate(stages, 1):
        strided = _conv(kit, before, after, CUBE, f"d{level}", stride=PAIR, padding=padding)
        layers += [kit.stack(*strided), *(_residual(kit, after, f"s{level}") for _ in range(2))]
    return nn.Sequential(*layers, kit.stack(*_last(kit, 8 * w, 8 * w)))


def _last(kit: Kit, before: int, after: int) -> list[nn.Module]:
    return _conv(kit, before, after, COLUMN, "last", stride=HALVE_COLUMN, padding=(0, 0, 0))


ENCODERS: dict[str, Callable[..., nn.Module]] = {"second": second, "centerpoint": centerpoint}
"""By the names of the command's options."""
