"""spconv on the CPU, the reference beside which our times are printed.

Its ``Native`` algorithm is the one that runs without a GPU: gather, matrix product, scatter, tap by
tap. Its sites live in a box that starts at zero, whose sides are made even down to stride 16, for
otherwise strided layers drop the last plane; its weights are ``[Cout, *kernel, Cin]`` with our
order of taps.
"""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from perception.models import MinkUNet
from perception.nn import Conv, ConvTranspose
from perception.sparse.kernel_map import KernelMap
from perception.sparse.sites import Sites

__all__ = ["NAME", "Boxed", "SpconvUNet", "conv", "map_pairs", "peer_weight", "version"]

NAME = "spconv"
MARGIN = 16


def _spconv() -> Any:
    """The library, without the warnings that its age gives under a new torch."""
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("spconv.pytorch")


def _native() -> Any:
    from spconv.core import ConvAlgo

    return ConvAlgo.Native


def version() -> str | None:
    """The installed version, or None where spconv cannot be imported."""
    try:
        _spconv()
        import spconv

        return str(spconv.__version__)
    except Exception:  # a broken CUDA or compiler setup raises anything at all
        return None


class Boxed:
    """Sites ``[N, 1 + D] int32`` moved into spconv's box, and the plans it builds on them."""

    def __init__(self, coords: Tensor, batch_size: int = 1, margin: int = MARGIN):
        low = torch.div(coords[:, 1:].amin(0), margin, rounding_mode="floor") * margin
        self.coords = torch.cat([coords[:, :1], coords[:, 1:] - low.int()], 1).contiguous()
        high = self.coords[:, 1:].amax(0) + 1
        self.shape = (-(-high // margin) * margin).tolist()
        self.batch_size = batch_size

    def plan(self, size: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Output sites, pairs ``[2, K, N]`` and pairs a tap of a cube kernel."""
        dim = self.coords.shape[1] - 1
        _spconv()
        from spconv.pytorch import ops

        return ops.get_indice_pairs(
            self.coords,
            self.batch_size,
            self.shape,
            _native(),
            [size] * dim,
            [stride] * dim,
            [size // 2 if stride == 1 else 0] * dim,
            [1] * dim,
            [0] * dim,
            subm=stride == 1,
        )


def map_pairs(plan: KernelMap, sites: Sites) -> tuple[Tensor, Tensor]:
    """Our plan in spconv's layout, so that both layers do the same work on the same rows."""
    in_rows, out_rows, ptr = plan.pairs
    counts = ptr.diff()
    pairs = torch.full((2, len(counts), sites.num_sites), -1, dtype=torch.int32)
    for tap, (begin, end) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)):
        pairs[0, tap, : end - begin] = in_rows[begin:end]
        pairs[1, tap, : end - begin] = out_rows[begin:end]
    return pairs, counts.int()


def peer_weight(layer: Conv | ConvTranspose) -> Tensor:
    """``[K, Cin, Cout]`` as ``[Cout, *kernel, Cin]``."""
    assert layer.kernel_size is not None
    weight = layer.weight.detach()
    dims = len(layer.kernel_size)
    order = (dims + 1, *range(dims), dims)
    return weight.reshape(*layer.kernel_size, *weight.shape[1:]).permute(order).contiguous()


def conv(
    kind: str, x: Tensor, weight: Tensor, pairs: tuple[Tensor, Tensor], num_out: int
) -> Tensor:
    """spconv's product over given pairs: "subm", "down" or "up" (pairs of the strided layer)."""
    _spconv()
    from spconv.pytorch import functional

    run = {
        "subm": functional.indice_subm_conv,
        "down": functional.indice_conv,
        "up": functional.indice_inverse_conv,
    }[kind]
    return run(x, weight, *pairs, num_out, _native())


class SpconvUNet(nn.Module):
    """The network of `perception.models.MinkUNet` in spconv's layers, with the same weights."""

    def __init__(self, net: MinkUNet):
        super().__init__()
        self.stem = _stack(net.stem, "s0")
        down, blocks = [], []
        for level, stage in enumerate(net.encoder, 1):
            *first, body = stage.children()
            down.append(_stack(first, f"d{level}"))
            blocks.append(_blocks(body, f"s{level}"))
        self.down, self.blocks = nn.ModuleList(down), nn.ModuleList(blocks)
        up, after = [], []
        stages: list[Any] = list(net.decoder)
        for level, stage in zip(reversed(range(len(stages))), stages, strict=True):
            up.append(_stack([stage.up, *stage.norm], f"d{level + 1}"))
            after.append(_blocks(stage.blocks, f"s{level}"))
        self.up, self.after = nn.ModuleList(up), nn.ModuleList(after)
        self.head = nn.Linear(net.head.in_features, net.head.out_features)
        self.head.load_state_dict(net.head.state_dict())

    def forward(self, sites: Boxed, features: Tensor) -> Tensor:
        """``[N, Cin]`` to ``[N, classes]``; plans are built on the way, as spconv does."""
        spconv = _spconv()
        x = spconv.SparseConvTensor(features, sites.coords, sites.shape, sites.batch_size)
        x = self.stem(x)
        skips = []
        for down, blocks in zip(self.down, self.blocks, strict=True):
            skips.append(x)
            x = blocks(down(x))
        for up, after in zip(self.up, self.after, strict=True):
            skip = skips.pop()
            x = up(x)
            x = after(x.replace_feature(torch.cat([x.features, skip.features], 1)))
        return self.head(x.features)


def _layer(layer: Conv | ConvTranspose, key: str) -> nn.Module:
    spconv, native = _spconv(), _native()
    size = layer.kernel_size
    assert size is not None
    args = (layer.in_channels, layer.out_channels, size[0])
    if isinstance(layer, ConvTranspose):
        peer = spconv.SparseInverseConv3d(*args, indice_key=key, bias=False, algo=native)
    elif max(layer.stride) > 1:
        peer = spconv.SparseConv3d(*args, layer.stride[0], indice_key=key, bias=False, algo=native)
    else:
        peer = spconv.SubMConv3d(*args, indice_key=key, bias=False, algo=native)
    peer.weight.data.copy_(peer_weight(layer))
    return peer


def _pointwise(module: nn.Module) -> nn.Module:
    """The torch module that ours is, without the lift to sparse tensors."""
    if isinstance(module, nn.BatchNorm1d):
        peer: nn.Module = nn.BatchNorm1d(module.num_features)
    elif isinstance(module, nn.Linear):
        peer = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    elif isinstance(module, nn.ReLU):
        return nn.ReLU(inplace=True)
    else:
        raise TypeError(f"no spconv counterpart of {type(module).__name__}")
    peer.load_state_dict(module.state_dict())
    return peer


def _stack(modules: Any, key: str) -> nn.Module:
    return _spconv().SparseSequential(
        *(_layer(m, key) if isinstance(m, Conv | ConvTranspose) else _pointwise(m) for m in modules)
    )


def _blocks(blocks: Any, key: str) -> nn.Sequential:
    return nn.Sequential(*(_Block(block, key) for block in blocks))


class _Block(nn.Module):
    def __init__(self, block: Any, key: str):
        super().__init__()
        self.body = _stack(block.body, key)
        self.shortcut: nn.Module = block.shortcut
        if not isinstance(block.shortcut, nn.Identity):
            self.shortcut = nn.Sequential(*map(_pointwise, block.shortcut))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        y = self.body(x)
        return y.replace_feature(self.relu(y.features + self.shortcut(x.features)))
