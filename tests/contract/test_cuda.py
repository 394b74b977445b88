"""What holds on CUDA beyond the contract: TF32, streams, graphs, nobody waits, several GPUs, size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from checks import assert_close, here, random_sites, random_tensor, randomized, surface_sites
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

import perception
from perception import SparseTensor, nn

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("on_cuda")]


def layers() -> dict[str, torch.nn.Module]:
    return {
        "conv": nn.Conv(16, 24, 3),
        "no bias": nn.Conv(16, 24, 3, bias=False),
        "strided": nn.Conv(16, 24, 2, stride=2),
        "groups": nn.Conv(16, 32, 3, groups=4),
        "depthwise": nn.Conv(16, 16, 3, groups=16),
        "back": torch.nn.Sequential(
            nn.Conv(16, 16, 2, stride=2), nn.ConvTranspose(16, 16, 2, stride=2)
        ),
        "max": nn.MaxPool(3, 2),
        "avg": nn.AvgPool(2, 2),
        "batch norm": nn.BatchNorm(16),
        "block": torch.nn.Sequential(
            nn.Conv(16, 32, 3, bias=False), nn.BatchNorm(32), nn.ReLU(), nn.Conv(32, 16, 3)
        ),
    }


LAYERS = pytest.mark.parametrize("name", layers())
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str
)


def cloud(dtype: torch.dtype = torch.float32, channels: int = 16) -> SparseTensor:
    return random_tensor(surface_sites(3000), channels, dtype=dtype)


def step(layer: torch.nn.Module, x: SparseTensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """The output and all gradients."""
    leaves = [x.features, *layer.parameters()]
    y = layer(x).features
    return [y, *torch.autograd.grad(y, leaves, grad)]


# --- TF32 -------------------------------------------------------------------------------------


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("channels", [(16, 16), (64, 96), (5, 7)], ids=str)
@pytest.mark.parametrize("make", [nn.Conv, nn.GenerativeConvTranspose])
def test_float32_is_exact_until_tf32_is_allowed(make, channels):
    layer = randomized(make(*channels, 3), torch.float32)
    x = cloud(channels=channels[0])
    with torch.no_grad():
        grad = torch.randn_like(layer(x).features)
    exact = randomized(make(*channels, 3))
    exact.load_state_dict(layer.state_dict())
    wide = x.replace(x.features.detach().double().requires_grad_())
    expected = step(exact, wide, grad.double())
    for allowed, limit in ((False, 1e-5), (True, 2e-3), (False, 1e-5)):
        with tf32(allowed):
            found = step(layer, x, grad)
        for what, a, b in zip(
            ("output", "features", "weight", "bias"), found, expected, strict=True
        ):
            assert_close(a, b, limit, f"{what}, tf32 {'allowed' if allowed else 'not allowed'}")


# --- streams and graphs -----------------------------------------------------------------------


@LAYERS
def test_work_goes_to_the_current_stream(name):
    """On a stream that is held up, everything from the sites on waits with it."""
    layer = randomized(layers()[name], torch.float32)
    x = cloud()
    with torch.no_grad():
        grad = torch.randn_like(layer(x).features)
    expected = step(layer, x, grad)
    torch.cuda.synchronize()

    features = torch.zeros_like(x.features).requires_grad_()
    coords, late = torch.zeros_like(x.coords), torch.zeros_like(grad)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        coords.copy_(x.coords)
        y = SparseTensor(features, coords)  # waits, for it looks for duplicates
        if isinstance(layer, nn.Conv):
            layer(y)  # makes the plan: what comes next waits for nobody
        torch.cuda._sleep(20_000_000)
        with torch.no_grad():
            features.copy_(x.features)
        late.copy_(grad)
        found = step(layer, y, late)
    stream.synchronize()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@DTYPES
@LAYERS
def test_a_layer_with_a_plan_is_captured_in_a_graph(name, dtype):
    layer = randomized(layers()[name], dtype).eval()
    x = cloud(dtype)
    with torch.no_grad():
        grad = torch.randn_like(layer(x).features)
    static = x.replace(x.features.detach().clone().requires_grad_())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step(layer, static, grad)
    torch.cuda.current_stream().wait_stream(stream)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(layer, static, grad)
    for seed in (1, 2):
        other = random_tensor(x.coords, 16, dtype=dtype, seed=seed).features
        with torch.no_grad():
            static.features.copy_(other)
        graph.replay()
        for a, b in zip(captured, step(layer, x.replace(other), grad), strict=True):
            assert torch.equal(a, b)


def test_training_with_batch_statistics_is_captured_in_a_graph():
    net = torch.nn.Sequential(nn.Conv(16, 16, 3), nn.BatchNorm(16), nn.ReLU(), nn.Conv(16, 4, 3))
    net = randomized(net, torch.float32).train()
    x = cloud()
    with torch.no_grad():
        grad = torch.randn_like(net(x).features)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(net, x, grad)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(net, x, grad)
    graph.replay()
    for a, b in zip(captured, step(net, x, grad), strict=True):
        assert torch.equal(a, b)


# --- nobody waits -----------------------------------------------------------------------------

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def waits(function: Callable[[], object]) -> list[str]:
    """The calls by which the host waits for the device, torch's and the engine's."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        with record_function("measured"):
            function()
        torch.cuda.synchronize()
    events = recorded.events()
    (measured,) = (
        event
        for event in events
        if event.name == "measured" and event.device_type == DeviceType.CPU
    )
    begin, end = measured.time_range.start, measured.time_range.end
    return [
        event.name
        for event in events
        if event.name in WAITS and begin <= event.time_range.start <= end
    ]


def test_waiting_is_seen():
    x = cloud()
    assert waits(lambda: x.features.sum().item())
    assert waits(lambda: perception.sparse.ops.unique_sites(x.coords))


@LAYERS
def test_a_layer_with_a_plan_does_not_wait(name):
    layer = randomized(layers()[name], torch.float32)
    x = cloud()
    with torch.no_grad():
        grad = torch.randn_like(layer(x).features)
    step(layer, x, grad)
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(layer, x, grad)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert not waits(lambda: step(layer, x, grad))


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda: nn.Conv(16, 16, 3), 0),
        (lambda: nn.Conv(16, 16, 3, dilation=2), 0),
        (lambda: nn.Conv(16, 16, 2, stride=2), 1),
        (lambda: nn.Conv(16, 16, 3, stride=2), 1),
    ],
    ids=["submanifold", "dilated", "tiling", "strided"],
)
def test_a_plan_is_built_with_at_most_one_wait(make, most):
    layer = randomized(make(), torch.float32)
    with torch.no_grad():
        grad = torch.randn_like(layer(cloud()).features)
    x = cloud()
    found = waits(lambda: step(layer, x, grad))
    assert len(found) <= most, found


# --- several GPUs, and size -------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@LAYERS
def test_the_device_of_the_tensors_need_not_be_the_current_one(name):
    layer = randomized(layers()[name], torch.float32)
    x = cloud()
    with torch.no_grad():
        grad = torch.randn_like(layer(x).features)
    expected = [t.cpu() for t in step(layer, x, grad)]
    there = SparseTensor(x.features.detach().to("cuda:1").requires_grad_(), x.coords.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    found = step(layer.to("cuda:1"), there, grad.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    for a, b in zip(found, expected, strict=True):
        assert a.device == torch.device("cuda:1")
        assert_close(a, b, 1e-6, name)
    if any(True for _ in layer.parameters()):  # pooling keeps nothing on a device
        with pytest.raises((ValueError, RuntimeError), match=r"device|cuda"):
            layer(x)


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_properties(0).total_memory < 40 * 2**30,
    reason="needs a GPU with 40 GiB",
)
def test_more_than_2_to_the_31_numbers_in_a_tensor(on_cuda):
    rows, channels = 34_000_000, 64
    assert rows * channels > 2**31
    along = torch.arange(rows, dtype=torch.int32, device=on_cuda)
    coords = torch.stack([torch.zeros_like(along), along], 1)
    layer = randomized(nn.Conv(channels, channels, 3, bias=False, dim=1), torch.float16)
    features = torch.randn(rows, channels, dtype=torch.float16, device=on_cuda).requires_grad_()
    y = layer(SparseTensor(features, coords)).features
    y.backward(features.detach())
    last = features.detach()[-100:].double()
    weight = layer.weight.detach().double()
    expected = last[:-2] @ weight[0] + last[1:-1] @ weight[1] + last[2:] @ weight[2]
    assert_close(y[-99:-1], expected, 2e-3, "output")
    back = last[:-2] @ weight[2].T + last[1:-1] @ weight[1].T + last[2:] @ weight[0].T
    assert_close(features.grad[-99:-1], back, 2e-3, "gradient")


def test_many_taps_and_few_sites():
    """More than 32 taps: several words of bits a tile."""
    coords = random_sites(300, 4, seed=1)
    layer = randomized(nn.Conv(8, 8, 3, dim=4), torch.float32)
    exact = randomized(nn.Conv(8, 8, 3, dim=4))
    x = random_tensor(coords, 8, dtype=torch.float32)
    wide = x.replace(x.features.detach().double())
    assert_close(layer(x).features, exact(wide).features, 1e-5, "output")


def test_a_batch_moves_with_its_sites():
    x = random_tensor(random_sites(100, 3).cpu(), 4, requires_grad=False)
    pinned = x.to("cpu").pin_memory()
    for moved in (
        pinned.to("cuda"),
        pinned.to("cuda", non_blocking=True),
        x.to("cpu").to("cuda:0"),
    ):
        assert moved.device == moved.coords.device == torch.device("cuda:0")
        assert torch.equal(moved.features, x.features)
        assert torch.equal(moved.coords, x.coords)
    assert here(x).to("cpu").coords.device.type == "cpu"
