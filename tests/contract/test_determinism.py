"""The same bits on every run and with any number of threads, on a cloud that is shaped like one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from checks import here, random_tensor, surface_sites

import perception
from perception import SparseTensor, nn

COORDS = surface_sites()
LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "conv": lambda: nn.Conv(16, 24, 3),
    "kernel 5": lambda: nn.Conv(16, 16, 5, kernel="cross"),
    "strided": lambda: nn.Conv(16, 24, 3, stride=2),
    "reach": lambda: nn.Conv(16, 16, 3, stride=2, sites="reach"),
    "groups": lambda: nn.Conv(16, 32, 3, groups=4),
    "depthwise": lambda: nn.Conv(16, 16, 3, groups=16),
    "transposed": lambda: nn.ConvTranspose(16, 8, 3),
    "generative": lambda: nn.GenerativeConvTranspose(16, 8, 2, stride=2),
    "max": lambda: nn.MaxPool(3, 2),
    "avg": lambda: nn.AvgPool(3, 2),
    "global": lambda: nn.GlobalPool("avg"),
    "batch norm": lambda: nn.BatchNorm(16),
    "group norm": lambda: nn.GroupNorm(4, 16),
}


def _run(make: Callable[[], torch.nn.Module], dtype: torch.dtype) -> list[torch.Tensor]:
    """Everything that one step computes, from fresh sites (so that maps are built again)."""
    torch.manual_seed(0)
    layer = here(make().to(dtype))
    x = random_tensor(COORDS.clone(), 16, dtype=dtype)
    y = layer(x)
    generator = torch.Generator().manual_seed(1)
    y.features.backward(here(torch.randn(y.features.shape, generator=generator).to(dtype)))
    gradients = [p.grad for p in layer.parameters() if p.grad is not None]
    return [y.coords, y.features.detach(), x.features.grad, *gradients]


def _assert_equal_with_any_threads(function: Callable[[], list[torch.Tensor]]) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = function()
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for run in range(2):
                for i, (a, b) in enumerate(zip(function(), expected, strict=True)):
                    assert torch.equal(a, b), f"result {i} differs: {threads} threads, run {run}"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype):
    _assert_equal_with_any_threads(lambda: _run(LAYERS[name], dtype))


def test_points():
    _assert_equal_with_any_threads(_run_points)


def test_union():
    _assert_equal_with_any_threads(_run_union)


def _run_points() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    points = (COORDS[:, 1:].repeat(3, 1) + torch.rand(60_000, 3, generator=generator)) * 0.1
    points = here(points)
    features = here(torch.randn(60_000, 4, generator=generator)).requires_grad_()
    voxels = perception.voxelize(points, 0.15, features=features)
    largest = perception.voxelize(points, 0.15, features=features, reduce="max")
    x = SparseTensor(voxels.features, voxels.coords)
    back = perception.devoxelize(x, points, 0.15, mode="trilinear")
    (back.square().sum() + largest.features.sum()).backward()
    return [voxels.coords, voxels.features, voxels.point_to_voxel, back, features.grad]


def _run_union() -> list[torch.Tensor]:
    a = random_tensor(COORDS[:12_000].contiguous(), 4, dtype=torch.float32)
    b = random_tensor(COORDS[8_000:].contiguous(), 4, dtype=torch.float32, seed=1)
    y = perception.union(a, b)
    y.features.square().sum().backward()
    return [y.coords, y.features, a.features.grad, b.features.grad]


RUNS: dict[str, Callable[[], list[torch.Tensor]]] = {
    **{name: lambda make=make: _run(make, torch.float32) for name, make in LAYERS.items()},
    "conv bf16": lambda: _run(LAYERS["conv"], torch.bfloat16),
    "generative bf16": lambda: _run(LAYERS["generative"], torch.bfloat16),
    "points": _run_points,
    "union": _run_union,
}


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", RUNS)
def test_deterministic_algorithms_are_honoured(name):
    """Nothing here has an undeterministic path: the switch does not raise, and the bits are the same."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for i, (a, b) in enumerate(zip(RUNS[name](), RUNS[name](), strict=True)):
            assert torch.equal(a, b), f"result {i} differs"
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", RUNS)
def test_the_same_bits_without_asking(name):
    first = RUNS[name]()
    for i, (a, b) in enumerate(zip(RUNS[name](), first, strict=True)):
        assert torch.equal(a, b), f"result {i} differs"
