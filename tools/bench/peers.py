"""The libraries beside which our times are printed: spconv, and spconv-triton, which has its API.

On the CPU spconv runs its ``Native`` algorithm, the only one that needs no GPU: gather, matrix
product, scatter, tap by tap. On a GPU both run their default, a masked implicit GEMM. Their sites
live in a box that starts at zero, whose sides are made even down to stride 16, for otherwise strided
layers drop the last plane; their weights are ``[Cout, *kernel, Cin]`` with our order of taps.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from perception.models import MinkUNet
from perception.nn import Conv, ConvTranspose
from perception.sparse import SparseTensor
from perception.tools.bench.target import Target

__all__ = [
    "LIBRARIES",
    "Boxed",
    "Kit",
    "Library",
    "SpconvUNet",
    "available",
    "copy_weights",
    "deviation",
    "difference",
    "our_rows",
    "peer_weight",
    "set_weight",
]

MARGIN = 16


@dataclass(frozen=True)
class Library:
    """One of the two, as far as it has spconv's API.

    Attributes:
        name: as on its package index.
        package: as it is imported.
        devices: where it runs.
    """

    name: str
    package: str
    devices: tuple[str, ...]

    def part(self, name: str) -> Any:
        """One of its modules, without the warnings that spconv's age gives under a new torch."""
        logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(f"{self.package}.{name}")

    @property
    def layers(self) -> Any:
        """Its layers, and `SparseConvTensor`."""
        return self.part("pytorch")

    @property
    def version(self) -> str:
        """The installed version."""
        return str(import_module(self.package).__version__)

    def algorithm(self, device: torch.device) -> Any:
        algorithms = self.part("core").ConvAlgo
        return algorithms.Native if device.type == "cpu" else algorithms.MaskImplicitGemm

    def obstacle(self, target: Target) -> str | None:
        """Why it does not run on the target's device and in its precision; None where it does."""
        if target.device.type not in self.devices:
            return f"it does not run on {target.device.type}"
        if target.precision == "bfloat16":
            return "it has no products in bfloat16"
        try:
            _ = self.layers
        except Exception as error:  # a broken CUDA or compiler setup raises anything at all
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return None

    def runs(self, target: Target) -> bool:
        """Whether it is here, on the target's device and in its precision."""
        return self.obstacle(target) is None

    def allow_tf32(self, allow: bool) -> None:
        """Its own switch, which is not torch's."""
        self.part("constants").SPCONV_ALLOW_TF32 = allow


LIBRARIES = (
    Library("spconv", "spconv", ("cpu", "cuda")),
    Library("spconv-triton", "spconv_triton", ("cuda",)),
)


def available(target: Target, names: Sequence[str] | None = None) -> list[Library]:
    """Those that are installed and run there; only the named ones, if any are named."""
    return [
        library
        for library in LIBRARIES
        if (names is None or library.name in names) and library.runs(target)
    ]


class Boxed:
    """Sites ``[N, 1 + D] int32`` moved into the box of the libraries.

    Attributes:
        coords: the same rows, moved.
        shape: of the box. A margin on every side keeps strided kernels from reaching past it.
        shift: what was added to each axis, a multiple of every stride up to 16.
    """

    def __init__(self, coords: Tensor, batch_size: int = 1, margin: int = MARGIN):
        lowest = torch.div(coords[:, 1:].amin(0), margin, rounding_mode="floor")
        self.shift = (1 - lowest) * margin
        self.coords = torch.cat([coords[:, :1], coords[:, 1:] + self.shift.int()], 1).contiguous()
        high = self.coords[:, 1:].amax(0) + 1
        self.shape = ((torch.div(high, margin, rounding_mode="floor") + 2) * margin).tolist()
        self.batch_size = batch_size

    def coarser(self, coords: Tensor, shape: Sequence[int]) -> Boxed:
        """Other sites ``[M, 1 + D]`` that a library found in this box, whose shape is now this."""
        other = copy(self)
        other.coords, other.shape = coords, list(shape)
        return other

    def tensor(self, library: Library, features: Tensor, plans: dict | None = None) -> Any:
        """A tensor of the library, with what it planned before if that is given."""
        return library.layers.SparseConvTensor(
            features, self.coords, self.shape, self.batch_size, indice_dict=plans
        )

    def plan(self, library: Library, size: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """On the CPU: output sites, pairs ``[2, K, N]`` and pairs a tap of a cube kernel."""
        dim = self.coords.shape[1] - 1
        return library.part("pytorch.ops").get_indice_pairs(
            self.coords,
            self.batch_size,
            self.shape,
            library.algorithm(self.coords.device),
            [size] * dim,
            [stride] * dim,
            [size // 2 if stride == 1 else 0] * dim,
            [1] * dim,
            [0] * dim,
            subm=stride == 1,
        )

    def ours(self, coords: Tensor, stride: Sequence[int]) -> Tensor:
        """Sites of the box at a stride, as they are outside of it."""
        step = torch.tensor(tuple(stride), dtype=self.shift.dtype, device=self.shift.device)
        shift = torch.div(self.shift, step, rounding_mode="floor").int()
        return torch.cat([coords[:, :1], coords[:, 1:] - shift], 1)


def our_rows(ours: Tensor, theirs: Tensor) -> Tensor | None:
    """For each of their sites our row ``[N] int64``, or None where the two sets differ."""
    if ours.shape != theirs.shape:
        return None
    if not len(ours):
        return torch.zeros(0, dtype=torch.int64, device=ours.device)
    low = torch.minimum(ours.amin(0), theirs.amin(0)).long()
    span = torch.maximum(ours.amax(0), theirs.amax(0)).long() - low + 1

    def keys(coords: Tensor) -> tuple[Tensor, Tensor]:
        place = coords.long() - low
        key = place[:, 0]
        for axis in range(1, place.shape[1]):
            key = key * span[axis] + place[:, axis]
        return key.sort()

    (our_keys, our_order), (their_keys, their_order) = keys(ours), keys(theirs)
    if not torch.equal(our_keys, their_keys):
        return None
    rows = torch.empty_like(our_order)
    rows[their_order] = our_order
    return rows


def peer_weight(layer: Conv | ConvTranspose, weight: Tensor | None = None) -> Tensor:
    """A layer's weight, or another tensor like it, ``[K, Cin, Cout]`` as ``[Cout, *kernel, Cin]``."""
    assert layer.kernel_size is not None
    weight = layer.weight.detach() if weight is None else weight
    dims = len(layer.kernel_size)
    order = (dims + 1, *range(dims), dims)
    return weight.reshape(*layer.kernel_size, *weight.shape[1:]).permute(order).contiguous()


def set_weight(peer: nn.Module, layer: Conv | ConvTranspose) -> nn.Parameter:
    """Gives a library's layer the weight of ours; returns its parameter."""
    parameter = peer.get_parameter("weight")
    parameter.data.copy_(peer_weight(layer))
    return parameter


class Kit:
    """The layers of a library under the names of `perception.tools.bench.architectures.Kit`."""

    def __init__(self, library: Library, device: torch.device):
        self.library = library
        self.layers = library.layers
        self.algorithm = library.algorithm(device)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        size: Sequence[int],
        key: str,
        *,
        stride: Sequence[int] = (1,),
        padding: Sequence[int] | None = None,
    ) -> nn.Module:
        options = {"indice_key": key, "bias": False, "algo": self.algorithm}
        if all(step == 1 for step in stride):
            kind = self.layers.SubMConv4d if len(size) == 4 else self.layers.SubMConv3d
            return kind(in_channels, out_channels, list(size), **options)
        pads = [(side - 1) // 2 for side in size] if padding is None else list(padding)
        return self.layers.SparseConv3d(
            in_channels, out_channels, list(size), list(stride), pads, **options
        )

    def up(self, in_channels: int, out_channels: int, size: Sequence[int], key: str) -> nn.Module:
        return self.layers.SparseInverseConv3d(
            in_channels, out_channels, list(size), key, bias=False, algo=self.algorithm
        )

    def norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm1d(channels)

    def relu(self) -> nn.Module:
        return nn.ReLU(inplace=True)

    def stack(self, *modules: nn.Module) -> nn.Module:
        return self.layers.SparseSequential(*modules)

    def residual(self, body: nn.Module) -> nn.Module:
        return _Residual(body)

    def replace(self, x: Any, features: Tensor) -> Any:
        return x.replace_feature(features)


def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Gives a network in a library's layers the weights and statistics of ours; both have the same
    layers in the same order."""

    def those(net: nn.Module) -> list[nn.Module]:
        kinds = nn.Linear | nn.BatchNorm1d
        return [m for m in net.modules() if isinstance(m, kinds) or _is_convolution(m)]

    for mine, other in zip(those(ours), those(theirs), strict=True):
        if isinstance(mine, Conv | ConvTranspose):
            set_weight(other, mine)
        else:
            other.load_state_dict(mine.state_dict())


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, Conv | ConvTranspose) or hasattr(module, "indice_key")


class SpconvUNet(nn.Module):
    """The network of `perception.models.MinkUNet` in a library's layers, with the same weights."""

    def __init__(self, net: MinkUNet, library: Library, device: torch.device):
        super().__init__()
        kit = Kit(library, device)
        self.stem = _stack(kit, net.stem, "s0")
        down, blocks = [], []
        for level, stage in enumerate(net.encoder, 1):
            *first, body = stage.children()
            down.append(_stack(kit, first, f"d{level}"))
            blocks.append(_blocks(kit, body, f"s{level}"))
        self.down, self.blocks = nn.ModuleList(down), nn.ModuleList(blocks)
        up, after = [], []
        stages: list[Any] = list(net.decoder)
        for level, stage in zip(reversed(range(len(stages))), stages, strict=True):
            up.append(_stack(kit, [stage.up, *stage.norm], f"d{level + 1}"))
            after.append(_blocks(kit, stage.blocks, f"s{level}"))
        self.up, self.after = nn.ModuleList(up), nn.ModuleList(after)
        self.head = _pointwise(net.head)

    def forward(self, x: Any) -> Any:
        """Features ``[N, Cin]`` to ``[N, classes]``; plans are built on the way, as spconv does."""
        x = self.stem(x)
        skips = []
        for down, blocks in zip(self.down, self.blocks, strict=True):
            skips.append(x)
            x = blocks(down(x))
        for up, after in zip(self.up, self.after, strict=True):
            skip = skips.pop()
            x = up(x)
            x = after(x.replace_feature(torch.cat([x.features, skip.features], 1)))
        return x.replace_feature(self.head(x.features))


def _layer(kit: Kit, layer: Conv | ConvTranspose, key: str) -> nn.Module:
    size = layer.kernel_size
    assert size is not None
    if isinstance(layer, ConvTranspose):
        peer = kit.up(layer.in_channels, layer.out_channels, size, key)
    else:
        peer = kit.conv(layer.in_channels, layer.out_channels, size, key, stride=layer.stride)
    set_weight(peer, layer)
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


def _stack(kit: Kit, modules: Any, key: str) -> nn.Module:
    return kit.stack(
        *(
            _layer(kit, m, key) if isinstance(m, Conv | ConvTranspose) else _pointwise(m)
            for m in modules
        )
    )


def _blocks(kit: Kit, blocks: Any, key: str) -> nn.Sequential:
    return nn.Sequential(*(_block(kit, block, key) for block in blocks))


def _block(kit: Kit, block: Any, key: str) -> nn.Module:
    shortcut = None
    if not isinstance(block.shortcut, nn.Identity):
        shortcut = nn.Sequential(*map(_pointwise, block.shortcut))
    return _Residual(_stack(kit, block.body, key), shortcut)


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None):
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        y = self.body(x)
        return y.replace_feature(self.relu(y.features + self.shortcut(x.features)))


def difference(ours: SparseTensor, theirs: Any, boxed: Boxed) -> float:
    """The largest deviation of their result from ours, relative to its largest value; infinite
    where their sites are others."""
    rows = our_rows(ours.coords, boxed.ours(theirs.indices, ours.stride))
    if rows is None:
        return float("inf")
    return deviation(ours.features[rows], theirs.features)


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """``max |ours - theirs| / max |theirs|``; infinite where shapes differ or a value is no number."""
    if ours.shape != theirs.shape:
        return float("inf")
    scale = theirs.float().abs().max().clamp(min=1e-30)
    found = float((ours.float() - theirs.float()).abs().max() / scale)
    return float("inf") if math.isnan(found) else found
