"""Where the time of a network goes: by kind of operator, and by shape of convolution."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from perception.nn import Conv, ConvTranspose
from perception.sparse import SparseTensor
from perception.tools.bench.timing import clock

__all__ = ["LayerShare", "by_operator", "by_shape", "convolution_flop"]

CONV = "perception::conv"
KINDS = {
    # Where gradients are wanted the forward call runs inside the autograd node's own event.
    "GeneratedBackwardFor_perception_conv_default": "convolution, forward",
    "GeneratedBackwardFor_perception_batch_norm_default": "batch norm",
    "perception::conv_weight_grad": "convolution, gradient of the weight",
    "perception::batch_norm": "batch norm",
    "perception::batch_norm_backward": "batch norm",
    "aten::addcmul": "batch norm",
    "aten::mm": "pointwise linear",
    "aten::addmm": "pointwise linear",
    "perception::build_index": "index, sites and maps",
    "perception::kernel_map": "index, sites and maps",
    "perception::transpose_map": "index, sites and maps",
    "perception::unique_sites": "index, sites and maps",
    "aten::clamp_min_": "relu",
    "aten::threshold_backward": "relu",
    "aten::add": "additions (shortcuts, sums of gradients)",
    "aten::add_": "additions (shortcuts, sums of gradients)",
    "aten::cat": "copies (cat, layout of weights, slices of gradients)",
    "aten::copy_": "copies (cat, layout of weights, slices of gradients)",
}
OTHER = "other operators"
BETWEEN = "between operators (Python, autograd)"


def by_operator(case: Callable[[], object]) -> dict[str, float]:
    """Wall-clock seconds that one call spends in each kind of operator, largest first; they sum to its time."""
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        begin = time.perf_counter()
        case()
        total = time.perf_counter() - begin
    seconds: dict[str, float] = defaultdict(float)
    for event in trace.events() or ():
        kind = KINDS.get(event.name)
        if kind is None and not event.name.startswith(("aten::", "perception::")):
            continue
        kind = kind or OTHER
        if event.name == CONV:
            kind = "convolution, " + ("gradient of the input" if _in_backward(event) else "forward")
        seconds[kind] += event.self_cpu_time_total * 1e-6
    seconds[BETWEEN] = max(total - sum(seconds.values()), 0.0)
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _in_backward(event: Any) -> bool:
    while event is not None:
        if event.name.startswith("autograd::engine"):
            return True
        event = event.cpu_parent
    return False


@dataclass
class LayerShare:
    """All convolutions of one shape in one forward pass: calls, seconds together, operations."""

    name: str
    calls: int = 0
    seconds: float = 0.0
    flop: float = 0.0

    @property
    def gflops(self) -> float:
        return self.flop / self.seconds / 1e9


def convolution_flop(layer: Conv | ConvTranspose, x: SparseTensor, y: SparseTensor) -> float:
    """Operations of a layer that has just run from x to y."""
    fine, coarse = (y, x) if isinstance(layer, ConvTranspose) else (x, y)
    plan = fine.sites.map_to(
        coarse.sites, layer.offsets, layer.stride, layer._key, layer._symmetric
    )
    return 2.0 * plan.num_pairs * layer.weight.shape[1] * layer.out_channels


def by_shape(net: nn.Module, run: Callable[[], object]) -> tuple[list[LayerShare], float]:
    """The convolutions of one forward pass by shape, largest first, and its operations in all
    (those of pointwise linear layers included)."""
    shares: dict[str, LayerShare] = {}
    linear = 0.0
    began: dict[nn.Module, float] = {}

    now = clock()

    def before(module: nn.Module, args: Any) -> None:
        began[module] = now()

    def after(module: nn.Module, args: Any, out: Any) -> None:
        nonlocal linear
        seconds = now() - began[module]
        if isinstance(module, nn.Linear):
            linear += 2.0 * out.num_sites * module.in_features * module.out_features
            return
        assert isinstance(module, Conv | ConvTranspose)
        stride = max(out.stride if isinstance(module, ConvTranspose) else args[0].stride)
        size = module.kernel_size[0] if module.kernel_size else module.num_taps
        word = "up" if isinstance(module, ConvTranspose) else "down"
        kind = "subm" if max(module.stride) == 1 else word
        name = f"{kind} {size}^3 {module.in_channels}->{module.out_channels} @{stride}"
        share = shares.setdefault(name, LayerShare(name))
        share.calls += 1
        share.seconds += seconds
        share.flop += convolution_flop(module, args[0], out)

    handles = []
    for module in net.modules():
        if isinstance(module, Conv | ConvTranspose | nn.Linear):
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    rows = sorted(shares.values(), key=lambda share: -share.seconds)
    return rows, linear + sum(share.flop for share in rows)
