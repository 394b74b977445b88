"""Networks that never look ahead in time, run frame by frame on what their layers kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from perception.nn import AvgPool, Conv, ConvTranspose, MaxPool, SumPool, Unpool
from perception.nn.conv import SparseKernel
from perception.sparse import KernelMap, Sites, SparseTensor, conv

__all__ = ["FrameByFrame", "Memory", "why_not_causal"]

_WITHIN_FRAMES = (Conv, ConvTranspose, AvgPool, MaxPool, SumPool, Unpool)


@dataclass
class Memory:
    """What the layers of a network were given for past frames.

    Attributes:
        past: for each layer with taps into the past, in the order in which they run: number of the frame
            and input, the newest first.
    """

    past: list[list[tuple[int, SparseTensor]]] = field(default_factory=list)

    def bytes(self) -> int:
        """Bytes of the features that are kept, each tensor counted once."""
        kept = {id(x.features): x.features for frames in self.past for _, x in frames}
        return sum(features.nbytes for features in kept.values())


class FrameByFrame:
    """Runs a causal 4D network on the newest frame alone, the same as on all frames so far.

    The sites of a frame share their time, so within it the network is one over space: its kernels without
    the time axis. A convolution with taps into the past also gets what it was given for the
    frames there, at the sites that these had. The sums are those of the network itself, in the same
    order. So the work is that of one frame, and what is kept is the input of those layers, as far
    back as each reaches.

    Args:
        net: sites ``(batch, x, y, z, t)``; `why_not_causal` has found nothing against it. Its
            parameters are shared, not copied.
    """

    def __init__(self, net: nn.Module) -> None:
        self._now = _Now()
        shared = {id(t): t for t in (*net.parameters(), *net.buffers())}
        self.net = _within_frames(copy.deepcopy(net, shared), self._now)

    def __call__(self, x: SparseTensor, number: int, memory: Memory, *points: Tensor) -> Any:
        """The network's result on frame `number`, later than all that `memory` knows.

        Args:
            x: sites ``(batch, x, y, z)``.
            memory: of the frames before; gains this one.
            points: what the network takes beside the sites, if anything.
        """
        run = self._now.run = _Run(number, memory)
        try:
            result = self.net(x, *points)
        finally:
            self._now.run = None
        # Only now: a run that failed leaves the memory as it was.
        memory.past = run.kept
        return result


class _Now:
    """Where the layers find the frame that is being run."""

    run: _Run | None = None


class _Recurrent(nn.Module):
    """A convolution with taps into the past, as the frames of a `_Run` see it."""

    def __init__(self, layer: Conv, now: _Now) -> None:
        super().__init__()
        self.weight, self.bias, self.groups = layer.weight, layer.bias, layer.groups
        self.stride = layer.stride[:-1]
        self.offsets, self.times = layer.offsets[:, :-1].contiguous(), layer.offsets[:, -1].tolist()
        self.depth = -min(self.times)
        self.key = tuple(tuple(tap) for tap in layer.offsets.tolist()), self.stride
        self._now = now

    def forward(self, x: SparseTensor) -> SparseTensor:
        assert self._now.run is not None
        return self._now.run.convolve(self, x)


class _Run:
    """One frame: what the layers get beside their input, and what they leave for the next."""

    def __init__(self, number: int, memory: Memory) -> None:
        self.number, self.before = number, memory.past
        self.kept: list[list[tuple[int, SparseTensor]]] = []
        self._bare: dict[int, tuple[Sites, Sites]] = {}
        self._plans: dict[tuple, tuple[KernelMap, list[Sites]]] = {}

    def convolve(self, layer: _Recurrent, x: SparseTensor) -> SparseTensor:
        call = len(self.kept)
        before = self.before[call] if self.before else []
        past = [(n, seen) for n, seen in before if n >= self.number - layer.depth]
        newest = SparseTensor(x.features, self._to_keep(x.sites))
        older = [(n, seen) for n, seen in past if n > self.number - layer.depth]
        self.kept.append([(self.number, newest), *older])
        out = x.sites.strided(layer.stride)
        frames = [(0, x.sites), *((n - self.number, seen.sites) for n, seen in past)]
        plan = self._plan(layer, frames, out)
        features = torch.cat([x.features, *(seen.features.to(x.dtype) for _, seen in past)])
        y = conv(features, layer.weight, layer.bias, plan, out.num_sites, layer.groups)
        result = SparseTensor(y, out)
        result.ancestors = x.ancestors if out is x.sites else (x.sites, *x.ancestors)
        return result

    def _to_keep(self, sites: Sites) -> Sites:
        """The same sites without their plans, which hold more memory than the features."""
        if id(sites) not in self._bare:
            bare = Sites(sites.coords, sites.stride, sites.batch_size, is_sorted=sites.is_sorted)
            self._bare[id(sites)] = sites, bare
        return self._bare[id(sites)][1]

    def _plan(self, layer: _Recurrent, frames: list[tuple[int, Sites]], out: Sites) -> KernelMap:
        """Kernel map from the rows of all frames; layers of one resolution and kernel share it."""
        key = (*layer.key, *(id(sites) for _, sites in frames))
        if key not in self._plans:
            make = _table if out.device.type == "cuda" else _pairs
            # The sites are kept with it, so that no others get the number of some that are gone.
            self._plans[key] = make(layer, frames, out), [sites for _, sites in frames]
        return self._plans[key][0]


def _pairs(layer: _Recurrent, frames: list[tuple[int, Sites]], out: Sites) -> KernelMap:
    """One map a frame, each planned fast (sorted sites, the newest's symmetric), put together."""
    none = torch.zeros(0, dtype=torch.int32)
    ins, outs = [none] * len(layer.times), [none] * len(layer.times)
    first = 0
    for time, sites in frames:
        taps = [k for k, step in enumerate(layer.times) if step == time]
        if taps:
            offsets = layer.offsets[taps].contiguous()
            key = tuple(tuple(tap) for tap in offsets.tolist())
            mirrored = bool(torch.equal(offsets, -offsets.flip(0)))
            in_rows, out_rows, ptr = sites.map_to(out, offsets, layer.stride, key, mirrored).pairs
            in_rows = in_rows + first if first else in_rows
            bounds = ptr.tolist()
            for k, start, stop in zip(taps, bounds[:-1], bounds[1:], strict=True):
                ins[k], outs[k] = in_rows[start:stop], out_rows[start:stop]
        first += sites.num_sites
    ends = torch.tensor([0, *map(len, ins)]).cumsum(0)
    return KernelMap((torch.cat(ins), torch.cat(outs), ends), monotone=False)


def _table(layer: _Recurrent, frames: list[tuple[int, Sites]], out: Sites) -> KernelMap:
    """One map of all frames' sites, with the time again."""

    def at(time: int, sites: Sites) -> Tensor:
        return torch.cat([sites.coords, sites.coords.new_full((sites.num_sites, 1), time)], 1)

    first = frames[0][1]
    inputs = torch.cat([at(*frame) for frame in frames])
    here = Sites(inputs, (*first.stride, 1), out.batch_size, is_sorted=False)
    there = Sites(at(0, out), (*out.stride, 1), out.batch_size, is_sorted=out.is_sorted)
    times = torch.tensor(layer.times, dtype=torch.int32, device=out.device)[:, None]
    offsets = torch.cat([layer.offsets, times], 1)
    return here.map_to(there, offsets, (*layer.stride, 1), layer.key[0], False)


def _within_frames(module: nn.Module, now: _Now) -> nn.Module:
    """`module` with its kernels in space alone, in place; it and its parts are already copies."""
    if isinstance(module, SparseKernel):
        return _in_space(module, now)
    for name, child in module.named_children():
        setattr(module, name, _within_frames(child, now))
    return module


def _in_space(layer: SparseKernel, now: _Now) -> nn.Module:
    if isinstance(layer, Conv) and int(layer.offsets[:, -1].min()) < 0:
        return _Recurrent(layer, now)
    offsets = layer.offsets[:, :-1].contiguous()
    if isinstance(layer, Conv | ConvTranspose):
        twin = type(layer)(
            layer.in_channels,
            layer.out_channels,
            stride=layer.stride[:-1],
            groups=layer.groups,
            bias=layer.bias is not None,
            kernel=offsets.cpu(),
            sites=layer.sites,
        ).to(layer.weight.device)
        twin.weight, twin.bias = layer.weight, layer.bias
        return twin
    assert layer.kernel_size is not None
    return type(layer)(layer.kernel_size[:-1], layer.stride[:-1]).to(offsets.device)  # type: ignore[call-arg]


def why_not_causal(net: nn.Module, channels: int, device: torch.device) -> str:
    """What keeps a network from being run frame by frame; empty if nothing does.

    The kernels are looked at, and then the network is tried: on a few sites in three frames, frame by
    frame must be the same as all at once.

    Args:
        channels: features of a site.
    """
    for name, layer in net.named_modules():
        if not isinstance(layer, SparseKernel):
            continue
        times = layer.offsets[:, -1]
        if layer.dim != 4 or type(layer) not in _WITHIN_FRAMES:
            return f"layer {name} ({type(layer).__name__}, {layer.dim} axes) is none of a frame"
        if layer.stride[-1] != 1:
            return f"layer {name} has stride {layer.stride[-1]} along time"
        if int(times.max()) > 0:
            return f"layer {name} looks ahead in time (kernel {layer.kernel_name!r})"
        if int(times.min()) < 0 and (type(layer) is not Conv or layer.sites is not None):
            return f"layer {name} ({type(layer).__name__}) reaches into the past"
    return _trial(net, channels, device)


def _trial(net: nn.Module, channels: int, device: torch.device) -> str:
    generator = torch.Generator().manual_seed(0)
    frames = []
    for _ in range(3):
        places = torch.unique(torch.randint(0, 6, (80, 3), generator=generator), dim=0).int()
        features = torch.randn(len(places), channels, generator=generator)
        frames.append((features, torch.cat([places.new_zeros(len(places), 1), places], 1)))
    coords = [
        torch.cat([sites, sites.new_full((len(sites), 1), number)], 1)
        for number, (_, sites) in enumerate(frames)
    ]
    every = torch.cat([features for features, _ in frames]).to(device)
    memory = Memory()
    with torch.inference_mode():
        together = net(SparseTensor(every, torch.cat(coords).to(device))).features
        try:
            runs = FrameByFrame(net)
            apart = [
                runs(SparseTensor(f.to(device), c.to(device)), number, memory).features
                for number, (f, c) in enumerate(frames)
            ]
        except (ValueError, TypeError, RuntimeError, AssertionError) as error:
            return f"it does not run on one frame ({' '.join(str(error).split())})"
    scale = together.abs().max().clamp(min=1e-6)
    if bool((torch.cat(apart) - together).abs().max() <= 2e-3 * scale):
        return ""
    return "its results differ when it sees one frame after the other"
