"""Where the time of a network goes: by kind of operator, and by shape of convolution."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from perception.nn import Conv, ConvTranspose
from perception.sparse import SparseTensor
from perception.tools.bench.sides import num_pairs
from perception.tools.bench.target import FLOAT32, Target
from perception.tools.bench.timing import clock

__all__ = ["LayerShare", "Work", "by_operator", "by_shape", "convolution_pairs"]

CONV = "perception::conv"
KINDS = {
    "perception::conv_norm": "convolution with norm and ReLU, forward",
    "perception::conv_batch_norm": "convolution with norm and ReLU, forward",
    "perception::conv_batch_norm_backward": "convolution with norm and ReLU, gradients",
    "perception::conv_weight_grad": "convolution, gradient of the weight",
    "perception::batch_norm": "batch norm",
    "perception::batch_norm_tracked": "batch norm",
    "perception::batch_norm_backward": "batch norm",
    "perception::normalize": "batch norm",
    "aten::addcmul": "batch norm",
    "aten::mm": "pointwise linear",
    "aten::addmm": "pointwise linear",
    "perception::build_index": "index, sites and maps",
    "perception::kernel_map": "index, sites and maps",
    "perception::transpose_map": "index, sites and maps",
    "perception::unique_sites": "index, sites and maps",
    "perception::reach_sites": "index, sites and maps",
    "perception::strided_sites": "index, sites and maps",
    "perception::plan_table": "index, sites and maps",
    "perception::plan_parts": "index, sites and maps",
    "perception::plan_transposed": "index, sites and maps",
    "aten::clamp_min_": "relu",
    "aten::threshold_backward": "relu",
    "aten::add": "additions (shortcuts, sums of gradients)",
    "aten::add_": "additions (shortcuts, sums of gradients)",
    "aten::cat": "copies (cat, layout of weights, slices of gradients)",
    "aten::copy_": "copies (cat, layout of weights, slices of gradients)",
}
OTHER = "other operators"
BETWEEN = "between operators (Python, autograd)"
IDLE = "the GPU waits for the host"


def by_operator(case: Callable[[], object], elapsed: float | None = None) -> dict[str, float]:
    """Seconds that one call spends in each kind of operator, largest first; they sum to its time.

    Args:
        elapsed: None for wall-clock time on the CPU. Else the seconds that a call takes on the GPU,
            and the operators' are those of the kernels that they launch.
    """
    gpu = elapsed is not None
    if gpu:
        case()
        torch.cuda.synchronize()
    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    ) as trace:
        begin = time.perf_counter()
        case()
        if gpu:
            torch.cuda.synchronize()
        total = time.perf_counter() - begin if elapsed is None else elapsed
    seconds: dict[str, float] = defaultdict(float)
    for event in trace.events() or ():
        if event.device_type != DeviceType.CPU:
            continue
        kind = KINDS.get(event.name)
        if kind is None and not gpu and not event.name.startswith(("aten::", "perception::")):
            continue
        kind = kind or OTHER
        if event.name == CONV:
            kind = "convolution, " + ("gradient of the input" if _in_backward(event) else "forward")
        spent = event.self_device_time_total if gpu else event.self_cpu_time_total
        seconds[kind] += spent * 1e-6
    seconds[IDLE if gpu else BETWEEN] = max(total - sum(seconds.values()), 0.0)
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


@dataclass
class Work:
    """What a forward pass needs at least: operations, and bytes of features, weights and maps."""

    flop: float = 0.0
    bytes: float = 0.0


def convolution_pairs(layer: Conv | ConvTranspose, x: SparseTensor, y: SparseTensor) -> int:
    """Active pairs of a layer that has just run from x to y."""
    fine, coarse = (y, x) if isinstance(layer, ConvTranspose) else (x, y)
    return num_pairs(layer, fine.sites, coarse.sites)


def by_shape(
    net: nn.Module, run: Callable[[], object], target: Target = FLOAT32
) -> tuple[list[LayerShare], Work]:
    """The convolutions of one forward pass by shape, largest first, and its work in all (that of
    pointwise linear layers included)."""
    shares: dict[str, LayerShare] = {}
    work = Work()
    calls: list[tuple[nn.Module, SparseTensor, SparseTensor, Callable[[], float]]] = []
    began: dict[nn.Module, Callable[[], Callable[[], float]]] = {}

    def before(module: nn.Module, args: Any) -> None:
        began[module] = _stopwatch(target)

    def after(module: nn.Module, args: Any, out: Any) -> None:
        calls.append((module, args[0], out, began[module]()))

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
    pairs: dict[tuple, int] = {}
    for module, x, y, seconds in calls:
        work.bytes += x.features.nbytes + y.features.nbytes
        work.bytes += sum(p.nbytes for p in module.parameters(recurse=False))
        if isinstance(module, nn.Linear):
            work.flop += 2.0 * y.num_sites * module.in_features * module.out_features
            continue
        assert isinstance(module, Conv | ConvTranspose)
        key = (x.sites, y.sites, module._key, module.stride)
        if key not in pairs:
            pairs[key] = convolution_pairs(module, x, y)
        share = shares.setdefault(_shape(module, x, y), LayerShare(_shape(module, x, y)))
        flop = 2.0 * pairs[key] * module.weight.shape[1] * module.out_channels
        share.calls += 1
        share.seconds += seconds()
        share.flop += flop
        work.flop += flop
        work.bytes += target.map_bytes * pairs[key]
    return sorted(shares.values(), key=lambda share: -share.seconds), work


def _shape(module: Conv | ConvTranspose, x: SparseTensor, y: SparseTensor) -> str:
    up = isinstance(module, ConvTranspose)
    stride = max(y.stride if up else x.stride)
    size = module.kernel_size[0] if module.kernel_size else module.num_taps
    if module.kernel_size and len(set(module.kernel_size)) > 1:
        text = "x".join(map(str, module.kernel_size))
    else:
        text = f"{size}^3"
    kind = "subm" if max(module.stride) == 1 else "up" if up else "down"
    return f"{kind} {text} {module.in_channels}->{module.out_channels} @{stride}"


def _stopwatch(target: Target) -> Callable[[], Callable[[], float]]:
    """Starts; called once it stops, and the result gives the seconds when they are wanted."""
    if not target.is_cuda:
        now = clock()
        begin = now()

        def stop() -> Callable[[], float]:
            seconds = now() - begin
            return lambda: seconds

        return stop
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    start.record()

    def elapsed() -> float:
        end.synchronize()
        return start.elapsed_time(end) * 1e-3

    def stop_gpu() -> Callable[[], float]:
        end.record()
        return elapsed

    return stop_gpu
